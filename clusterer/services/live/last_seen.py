"""How long ago the instances last saw the nodes, from the times that the store has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clusterer.store.last_seen import LastSeenTimes


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The time since an instance last saw a node, for one module."""

    receiver: int
    """machine_id of the instance."""
    module: str
    age_s: float
    muted_s: float | None
    """Seconds from now until the mute of the node ends; None if the node is not muted."""
    timeout_s: float
    """Module timeout; 0 if the module never mutes."""


def by_node(times: Iterable[LastSeenTimes], now: float) -> Mapping[tuple[int, int], list[LastSeen]]:
    """Return by (cluster_id, machine_id) when the instances that listen last saw a node.

    ``now``: Redis TIME, UNIX seconds.
    """
    now_ms = now * 1000
    found: dict[tuple[int, int], list[LastSeen]] = {}
    for each in times:
        for machine_id in sorted({*each.last_seen_ms, *each.muted_ms}):
            place = each.watch.cluster_id, machine_id
            found.setdefault(place, []).append(_of(each, machine_id, now_ms))
    for items in found.values():
        items.sort(key=lambda item: (item.module, item.receiver))
    return found


def _of(times: LastSeenTimes, machine_id: int, now_ms: float) -> LastSeen:
    until = times.muted_ms.get(machine_id)
    return LastSeen(
        times.watch.receiver,
        times.watch.token,
        max(0.0, now_ms - times.last_seen_ms.get(machine_id, 0)) / 1000,
        None if until is None else max(0.0, until - now_ms) / 1000,
        times.watch.timeout_ms / 1000,
    )
