"""Addresses of nodes that are valid one by one and wrong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from clusterer.membership.node import Node

ADVICE = (
    "give each node an address that the other hosts reach, in the table or where the name leads "
    "(Debian's /etc/hosts has 127.0.1.1 for a host's own name), then run `clusterer reload`"
)
"""What to do about all of them."""


class AddressWarning(NamedTuple):
    """The faults of the addresses of one cluster."""

    nodes: tuple[Node, ...]
    """The nodes that it concerns."""
    text: str


def address_warnings(nodes: Iterable[Node]) -> list[AddressWarning]:
    """Return what looks wrong: loopback addresses among others, and one address for two nodes.

    Each cluster and protocol is judged for itself. A cluster that has loopback addresses only is
    on one host, which is right.
    """
    clusters: defaultdict[tuple[int, str], list[Node]] = defaultdict(list)
    for node in nodes:
        clusters[node.cluster_id, node.protocol].append(node)
    return [
        warning
        for members in clusters.values()
        for warning in (*_loopback(members), *_shared(members))
    ]


def _loopback(members: list[Node]) -> Iterator[AddressWarning]:
    found = [node for node in members if ip_address(node.host).is_loopback]
    for node in found if len(found) < len(members) else ():
        yield AddressWarning(
            (node,),
            f"cluster {node.cluster_id}: node {node.machine_id} ({node.url}) is at {node.host}, a "
            "loopback address, which leads every other host to itself",
        )


def _shared(members: list[Node]) -> Iterator[AddressWarning]:
    places: defaultdict[tuple[str, int], list[Node]] = defaultdict(list)
    for node in members:
        places[node.address].append(node)
    for (host, port), found in places.items():
        if len(found) > 1:
            names = ", ".join(str(node.machine_id) for node in found)
            yield AddressWarning(
                tuple(found),
                f"cluster {found[0].cluster_id}: nodes {names} have one address, {host} port "
                f"{port}: packets for one reach another",
            )


def normalised_ip(text: str) -> str:
    """Return an IP address in its shortest form; IPv4 mapped into IPv6 becomes IPv4.

    A zone such as ``%eth0`` is dropped. Text that is no IP address is returned as it is.
    """
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)
