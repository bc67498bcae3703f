"""A member beside a node that misbehaves: the links to the other nodes stay as they are."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from clusterer.settings import Settings
from clusterer.wire import FrameDecoder3, Packet, PacketBuilder3
from clusterer.wire.layout3 import INTERNAL
from tests.support.cluster3 import INSTANCE, Cluster3, cluster3
from tests.support.listening import ended
from tests.support.opensips3 import DESCRIPTION, PING, PONG, UNKNOWN_ID, UP
from tests.support.processes import EVENTUALLY_S, LATE_S, rounds, wait_until

SETTINGS = {"opensips_3_clusters": "7"}
BAD = 22

ANSWERED_WITHIN_S = 1.0
"""``ping_timeout`` of a node: later, the node holds the instance to be frozen."""


class BadNode:
    """Takes the place of node 22: connections to and from the instance, with anything on them."""

    def __init__(self, cluster: Cluster3) -> None:
        cluster.nodes[BAD].stop()
        self.address = cluster.nodes[BAD].address
        self._instance = cluster.rows[INSTANCE].address
        self._listener = socket.create_server(self.address)

    def accept(self, timeout_s: float = EVENTUALLY_S) -> socket.socket:
        self._listener.settimeout(timeout_s)
        sock, _ = self._listener.accept()
        sock.settimeout(EVENTUALLY_S)
        return sock

    def connect(self) -> socket.socket:
        source = (self.address[0], 0)
        return socket.create_connection(self._instance, EVENTUALLY_S, source)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def cluster(settings: Settings) -> Iterator[Cluster3]:
    with cluster3(settings) as made:
        yield made


@contextlib.contextmanager
def beside(cluster: Cluster3) -> Iterator[BadNode]:
    """Run the instance beside a bad node; the link to the other node never changes."""
    with contextlib.closing(BadNode(cluster)) as bad, cluster.instance():
        good = cluster.nodes[21]
        both = (UP, "up")
        wait_until(lambda: (good.link(INSTANCE), cluster.states().get(21)) == both)
        changes = len(good.history(INSTANCE))
        yield bad
        assert len(good.history(INSTANCE)) == changes
        assert cluster.states()[21] == "up"


def packet(kind: int) -> PacketBuilder3:
    return PacketBuilder3(INTERNAL, kind, BAD, cluster_id=7)


def packets(sock: socket.socket, count: int) -> list[Packet]:
    """Return the next packets on a connection."""
    decoder, found = FrameDecoder3(), list[Packet]()
    while len(found) < count:
        chunk = sock.recv(65_536)
        assert chunk, "the connection has ended"
        found += decoder.feed(chunk)
    return found


def until(sock: socket.socket, kind: int) -> Packet:
    """Return the next packet of a type; the ones before it are of no interest."""
    while True:
        found = [each for each in packets(sock, 1) if each.type == kind]
        if found:
            return found[0]


def test_member_answers_unknown_id_on_its_connection(cluster: Cluster3) -> None:
    with beside(cluster) as bad, bad.accept() as sock:
        ping, *_ = packets(sock, 1)
        assert (ping.type, ping.machine_id) == (PING, INSTANCE)
        sock.sendall(packet(UNKNOWN_ID).build().encode())
        described = until(sock, DESCRIPTION)
        assert described.fields().pop_str() == cluster.rows[INSTANCE].url.encode()
        with bad.connect() as other:
            other.sendall(packet(PING).push_int(0).build().encode())
            until(sock, PONG)


def test_member_flooded_with_pings_answers_the_others(cluster: Cluster3) -> None:
    """The bad node pings as fast as it can, and reads no answer."""
    flood = packet(PING).push_int(1).build().encode() * 1000
    with beside(cluster) as bad, bad.accept(), bad.connect() as sock:
        good = cluster.nodes[21]
        sock.settimeout(0.1)
        answered = len(good.of(INSTANCE, INTERNAL, PONG))
        for _ in rounds(6.0, pause_s=0.0):
            with contextlib.suppress(TimeoutError):
                sock.sendall(flood)
        good.ping(INSTANCE)
        wait_until(
            lambda: len(good.of(INSTANCE, INTERNAL, PONG)) > answered, ANSWERED_WITHIN_S + LATE_S
        )


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"P4CK\xff\xff\xff\xff" + bytes(99)])
def test_member_closes_connections_with_junk(cluster: Cluster3, junk: bytes) -> None:
    with beside(cluster) as bad:
        with bad.accept() as own, bad.connect() as other:
            for sock in (own, other):
                sock.sendall(junk)
                wait_until(lambda s=sock: ended(s), message="closed")  # type: ignore[misc]
        with bad.accept() as own:
            assert PING in {each.type for each in packets(own, 1)}, "it is tried again"


@pytest.mark.parametrize(
    "junk",
    [
        packet(3).push_int(0).push_int(0).push_int(-5).build(),
        packet(1).push_int(2**31 - 1).push_int(1).build(),
        packet(77).build(),
    ],
)
def test_member_drops_junk_packets_of_a_node(cluster: Cluster3, junk: Packet) -> None:
    with beside(cluster) as bad, bad.accept() as own, bad.connect() as other:
        for sock in (own, other):
            sock.sendall(junk.encode() + packet(PING).push_int(0).build().encode())
        seen = list[int]()
        while seen.count(PONG) < 2:
            seen += [each.type for each in packets(own, 1)]


def test_member_with_a_node_that_closes_at_once(cluster: Cluster3) -> None:
    with beside(cluster) as bad:
        for _ in rounds(5.0, pause_s=0.2):
            with contextlib.suppress(TimeoutError):
                bad.accept(0.2).close()
        assert cluster.states()[BAD] != "up"


def test_member_logs_bad_packets_of_a_node_once(
    cluster: Cluster3, caplog: pytest.LogCaptureFixture
) -> None:
    bad_packets = [packet(PONG).push_int(-number).build().encode() for number in range(1, 50)]
    with beside(cluster) as bad, bad.accept() as own:
        own.sendall(b"".join(bad_packets) + packet(PING).push_int(0).build().encode())
        until(own, PONG)
    assert len([each for each in caplog.messages if "bad packet" in each]) == 1
