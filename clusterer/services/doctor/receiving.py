"""The check for instances that receive nothing from a node that sends to other instances.

An OpenSIPS node keeps its own view of the other nodes. If OpenSIPS has disabled a restarted
instance, OpenSIPS sends no packet to the instance for the row's ``duration``. Neither side logs
this.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, bounded, ok, warn
from clusterer.services.status import paths
from clusterer.store import ClusterKey
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Reception

CHECK = "receiving"

MISSED_MS = 5_000
"""An instance is suspected if its last packet of a node is so much older than another instance's.

Instances write their clocks to Redis every 2 s."""

PAUSE_S = 4.0
"""Pause between two looks if the first finds a suspect: a node that sends is seen meanwhile."""

_NAMED = 10


class Missed(NamedTuple):
    """An instance to which a node does not send."""

    cluster_id: int
    receiver: int
    machine_id: int


def check(context: Context) -> Iterator[Finding]:
    """Compare the nodes that the instances last saw; a suspected instance takes `PAUSE_S`."""
    receipts = Receipts(context.settings, context.redis)
    before = receipts.receptions()
    found: list[Missed] = []
    if suspected(before):
        time.sleep(PAUSE_S)
        found = [m for m in missing(before, receipts.receptions()) if _is_up(context, m)]
        found = _without_broken_paths(context, found)
    yield from bounded([_missed(each) for each in found], _NAMED, "begin with those above")
    if not found:
        count = len({reception.watch.receiver for reception in before})
        text = f"{count} instances; each receives from all nodes that send to other instances"
        yield ok(CHECK, text)


def suspected(receptions: Sequence[Reception]) -> set[Missed]:
    """Return the instances that saw a node `MISSED_MS` longer ago than another instance did."""
    return {
        Missed(cluster_id, one.watch.receiver, machine_id)
        for (cluster_id, _), group in _groups(receptions).items()
        for machine_id, latest in _latest(group).items()
        for one in group
        if one.watch.receiver != machine_id and latest - one.last_seen_at(machine_id) >= MISSED_MS
    }


def missing(before: Sequence[Reception], after: Sequence[Reception]) -> list[Missed]:
    """Return the suspects of both looks whose node another instance saw between the looks.

    A clock also starts when an instance registers or a mute ends; such a clock does not advance.
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
    """Return the time of the first look at a registration; infinity if the node had no clock there.

    The instance may write a last packet two seconds late: only a later packet shows that the node
    sends.
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
    """Whether nodes must send to the instance: the instance's node is up."""
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
        f"an OpenSIPS that could not connect has disabled node {receiver} for the `duration` of "
        f"its row: wait, or run `opensipsctl fifo clusterer_set_status {missed.cluster_id} "
        f"{receiver} 1 bin` on the host of OpenSIPS; else check the firewalls between, and the "
        f"`unknown source` drops of instance {receiver}",
    )
