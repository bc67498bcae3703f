"""Instances that hear nothing from a node which other instances hear.

An OpenSIPS node keeps its own view of the others. It may have disabled an instance that was
restarted, and then sends it nothing for the row's ``duration``, without a word on either side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, ok, skipped, warn
from clusterer.services.status import paths
from clusterer.store import ClusterKey
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Reception

CHECK = "receiving"

MISSED_MS = 5_000
"""How much longer ago than another an instance must have seen a node to be suspected.

Clocks in Redis are written every 2 s."""

PAUSE_S = 4.0
"""Between the two looks: a node that sends is seen again meanwhile. Only with a suspicion."""

_NAMED = 10


class Missed(NamedTuple):
    """An instance that a node does not send to."""

    cluster_id: int
    receiver: int
    machine_id: int


def check(context: Context, *, pause: Callable[[float], object] = time.sleep) -> Iterator[Finding]:
    """Compare what the instances hear; takes `PAUSE_S` if something looks wrong."""
    receipts = Receipts(context.settings, context.redis)
    before = receipts.receptions()
    found: list[Missed] = []
    if suspected(before):
        pause(PAUSE_S)
        found = [m for m in missing(before, receipts.receptions()) if _is_up(context, m)]
        found = _without_broken_paths(context, found)
    for missed in found[:_NAMED]:
        yield _missed(missed)
    if len(found) > _NAMED:
        yield warn(CHECK, f"and {len(found) - _NAMED} more like these", "begin with these")
    if not found:
        count = len({reception.watch.receiver for reception in before})
        yield ok(CHECK, f"{count} instances; none misses a node that another one hears")


def unknown() -> Finding:
    """Say that nothing can be said without Redis."""
    return skipped(CHECK, "needs Redis")


def suspected(receptions: Sequence[Reception]) -> set[Missed]:
    """Return the instances that saw a node `MISSED_MS` longer ago than another one did."""
    return {
        Missed(cluster_id, one.watch.receiver, machine_id)
        for (cluster_id, _), group in _groups(receptions).items()
        for machine_id, latest in _latest(group).items()
        for one in group
        if one.watch.receiver != machine_id and latest - one.last_seen_at(machine_id) >= MISSED_MS
    }


def missing(before: Sequence[Reception], after: Sequence[Reception]) -> list[Missed]:
    """Return those suspected in both looks of nodes that another instance saw in between.

    A clock also begins when an instance registers or ends a silence; then it stands still.
    """
    last_seen = {
        (reception.watch.cluster_id, machine_id)
        for reception in after
        for machine_id, at in reception.last_seen_ms.items()
        if _first_read(before, reception, machine_id) < at
    }
    both = suspected(before) & suspected(after)
    return sorted(each for each in both if (each.cluster_id, each.machine_id) in last_seen)


def _first_read(before: Sequence[Reception], now: Reception, machine_id: int) -> float:
    """Return when the same registration was first read, infinity if the node had no clock there.

    A last packet may be noted two seconds late: only a later one shows that the node sends.
    """
    same = (each for each in before if each.watch == now.watch and machine_id in each.last_seen_ms)
    return next((each.read_ms for each in same), float("inf"))


def _groups(receptions: Sequence[Reception]) -> Mapping[tuple[int, str], list[Reception]]:
    groups: dict[tuple[int, str], list[Reception]] = {}
    for reception in receptions:
        groups.setdefault((reception.watch.cluster_id, reception.watch.module), []).append(
            reception
        )
    return groups


def _latest(group: Sequence[Reception]) -> Mapping[int, int]:
    latest: dict[int, int] = {}
    for reception in group:
        for machine_id, at in reception.last_seen_ms.items():
            latest[machine_id] = max(at, latest.get(machine_id, 0))
    return latest


def _is_up(context: Context, missed: Missed) -> bool:
    """Whether nodes are to send to the instance; one that is down here hears nothing by order."""
    view = context.nodes.view(ClusterKey(missed.cluster_id, PROTO_BIN))
    node = view.nodes.get(missed.receiver)
    return node is not None and node.condition is Condition.UP and missed.machine_id in view.nodes


def _without_broken_paths(context: Context, found: list[Missed]) -> list[Missed]:
    """Leave out what a broken path explains: the check of the paths reports it."""
    records, now_ms = paths.read(context) if found else ({}, 0)
    broken = paths.broken(context.nodes.views().values(), records, now_ms) if records else []
    known = {Missed(p.node.cluster_id, p.node.machine_id, p.sender) for p in broken}
    return [missed for missed in found if missed not in known]


def _missed(missed: Missed) -> Finding:
    receiver, machine_id = missed.receiver, missed.machine_id
    return warn(
        CHECK,
        f"cluster {missed.cluster_id}: instance {receiver} receives nothing from node "
        f"{machine_id}, which sends to others",
        f"an OpenSIPS that could not connect has disabled {receiver} for the `duration` of its "
        f"row: wait, or there `opensipsctl fifo clusterer_set_status {missed.cluster_id} "
        f"{receiver} 1 bin`; else look for a firewall between, and for `unknown source` drops of "
        f"instance {receiver}",
    )
