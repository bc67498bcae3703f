"""Addresses that are wrong together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterer.membership import Node, address_warnings


def at(machine_id: int, host: str, port: int = 5566, **other: object) -> Node:
    node = Node(machine_id, 1, machine_id, f"bin:{host}:{port}", "bin", host, port)
    return replace(node, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "machines"),
    [
        ([], []),
        ([at(1, "127.0.0.1"), at(2, "127.0.0.2"), at(3, "::1")], []),
        ([at(1, "192.0.2.1"), at(2, "192.0.2.2"), at(3, "2001:db8::1")], []),
        ([at(1, "127.0.1.1"), at(2, "192.0.2.2")], [(1,)]),
        ([at(1, "::1"), at(2, "127.0.0.1"), at(3, "192.0.2.3")], [(1,), (2,)]),
        ([at(1, "192.0.2.1"), at(2, "192.0.2.1")], [(1, 2)]),
        ([at(1, "192.0.2.1"), at(2, "192.0.2.1", 5567)], []),
        ([at(1, "192.0.2.1"), at(1, "192.0.2.1", cluster_id=2)], []),
        ([at(1, "127.0.0.1"), at(2, "192.0.2.1", cluster_id=2)], []),
        ([at(1, "192.0.2.1"), at(2, "192.0.2.1", protocol="udp")], []),
        ([at(m, "127.0.0.1") for m in (1, 2, 3)], [(1, 2, 3)]),
    ],
)
def test_address_warnings_name_the_nodes(
    nodes: list[Node], machines: list[tuple[int, ...]]
) -> None:
    found = address_warnings(nodes)
    assert [tuple(node.machine_id for node in warning.nodes) for warning in found] == machines
    for warning in found:
        assert all(node.host in warning.text for node in warning.nodes)
