"""A port of this host on which nothing listens, where TCP connects a socket to itself."""

from __future__ import annotations

import socket

import pytest

from clusterer.delivery.link import connected_to_itself
from tests.support.namespaces import run_alone

PORT = 40_000
"""The only port that the kernel may choose in the namespaces of these tests."""

CONNECT_BY = {
    "probe": """
from clusterer.membership import Node
from clusterer.services.periodic.reach import ping_all
print(ping_all([Node(2, 1, 2, "bin:127.0.0.1:{port}", "bin", "127.0.0.1", {port})], 2.0))
""",
    "delivery": """
import select
from clusterer.delivery.link import Link
from clusterer.errors import PeerUnreachable
try:
    link = Link(("127.0.0.1", {port}), "127.0.0.1", 2.0)
    select.select([], [link], [], 2.0)
    link.finish_connecting()
except PeerUnreachable as error:
    print(error)
""",
    "replay": """
from clusterer.errors import PeerUnreachable
from clusterer.services.admin.replay import NodeConnection
try:
    NodeConnection("127.0.0.1", {port}, 2.0)
except PeerUnreachable as error:
    print(error)
""",
}
"""Programs that print why they could not connect."""


@pytest.mark.netns
@pytest.mark.parametrize("by", CONNECT_BY)
def test_connect_to_own_port_counts_as_refused(by: str) -> None:
    only_port = f"echo {PORT} {PORT} >/proc/sys/net/ipv4/ip_local_port_range"
    said = run_alone(["-c", CONNECT_BY[by].format(port=PORT)], only_port)
    assert "Connection refused" in said


def test_connected_to_itself_tells_own_from_other_end() -> None:
    with socket.socket() as alone, socket.create_server(("127.0.0.1", 0)) as server:
        alone.bind(("127.0.0.1", 0))
        alone.connect(alone.getsockname())
        assert connected_to_itself(alone)
        with socket.create_connection(server.getsockname()) as client:
            assert not connected_to_itself(client)
        alone.close()
        assert not connected_to_itself(alone)
