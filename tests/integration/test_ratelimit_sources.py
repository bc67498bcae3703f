"""Default sources of ratelimit on a real host: sockets with unread bytes, CPU load."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from clusterer.modules.ratelimit import Algorithm, CpuLoad, QueuedBytes, RateLimit
from tests.support.fake_cluster import FakeCluster
from tests.support.processes import wait_until

ADDRESSES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def listener(family: int, host: str, kind: int) -> socket.socket:
    try:
        sock = socket.socket(family, kind)
        sock.bind((host, 0))
    except OSError as error:
        pytest.skip(f"no {host} on this host: {error}")
    return sock


@pytest.fixture(params=ADDRESSES, ids=["IPv4", "IPv6"])
def receiver(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A bound UDP socket without a reader."""
    family, host = request.param
    with listener(family, host, socket.SOCK_DGRAM) as sock:
        yield sock


def send(receiver: socket.socket) -> None:
    with socket.socket(receiver.family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x" * 1_000, receiver.getsockname())


def test_queued_bytes_datagrams_counted_until_read(receiver: socket.socket) -> None:
    port = receiver.getsockname()[1]
    queued = QueuedBytes([port])
    assert queued() == 0
    send(receiver)
    wait_until(lambda: queued() >= 1_000, message="an unread datagram")
    assert QueuedBytes()() >= 1_000
    assert QueuedBytes([port - 1 or 1])() == 0
    receiver.recv(2_000)
    assert queued() == 0


@pytest.mark.parametrize(("family", "host"), ADDRESSES, ids=["IPv4", "IPv6"])
def test_queued_bytes_counts_data_not_pending_connections(family: int, host: str) -> None:
    with listener(family, host, socket.SOCK_STREAM) as server:
        server.listen()
        queued = QueuedBytes([server.getsockname()[1]])
        with socket.create_connection(server.getsockname()[:2]) as client:
            assert queued() == 0
            peer, _ = server.accept()
            with peer:
                client.sendall(b"x" * 1_000)
                wait_until(lambda: queued() == 1_000, message="unread bytes")
                peer.recv(2_000)
                assert queued() == 0


def test_network_pipe_with_unread_socket_refuses(receiver: socket.socket) -> None:
    queued = QueuedBytes([receiver.getsockname()[1]])
    with RateLimit(FakeCluster(), timer_interval=0.02, queued_bytes=queued) as limiter:
        assert limiter.check("calls", 500, Algorithm.NETWORK)
        send(receiver)
        wait_until(lambda: not limiter.check("calls", 500, Algorithm.NETWORK), message="a refusal")
        receiver.recv(2_000)
        wait_until(lambda: limiter.check("calls", 500, Algorithm.NETWORK), message="a pass")


def test_cpu_load_of_busy_process_rises() -> None:
    load = CpuLoad()
    assert load() == 0.0

    def worked() -> bool:
        sum(range(100_000))
        return 0.0 < load() <= 1.0

    wait_until(worked, message="a CPU load above 0")
