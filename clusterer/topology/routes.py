"""Which nodes can be reached, and over which neighbour."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def next_hops(
    up: Iterable[int],
    neighbours: Callable[[int], Iterable[int]],
    rank: Callable[[int], tuple[int, int]],
) -> dict[int, int]:
    """Return node → first node on the shortest way to it, for each node that can be reached.

    ``up``: nodes whose link is up. ``neighbours``: of another node, as that node says. ``rank``:
    sorts the nodes of ``up``, the preferred first: of two shortest ways, its way is taken.
    """
    hops = {node: node for node in sorted(up, key=rank)}
    queue = list(hops)
    for node in queue:
        for neighbour in neighbours(node):
            if neighbour not in hops:
                hops[neighbour] = hops[node]
                queue.append(neighbour)
    return hops
