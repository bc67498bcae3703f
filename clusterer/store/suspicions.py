"""Suspicions in Redis: opened, answered, ended. Python decides, Lua commits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import redis

from clusterer.membership import Condition, Event, Node, State
from clusterer.membership.suspicions import (
    EVIDENCE_MS,
    VOID_MS,
    Kind,
    Suspicion,
    choose_asked,
    elsewhere,
)
from clusterer.membership.views import ClusterKey, Views
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import bad, ids, replaced, text, times_of
from clusterer.store.client import Store, ms_of
from clusterer.store.encoding import decode_node
from clusterer.store.node_change import EVENTS_CAP, Cause
from clusterer.store.nodes import NodeStore
from clusterer.store.paths import Observation, event_of

_ATTEMPTS = 50
"""Most attempts of a change with which changes of other processes interfere."""


class Opened(Enum):
    """Result of opening a suspicion."""

    CHANGED = 0
    """The node is gone, is another one, or its verdict does not ask for it: nothing is open."""
    ALREADY = 1
    """A suspicion is open already."""
    ASKED = 2
    """The suspicion is open now, and the first probers are asked."""
    ALONE = 3
    """No other prober is present: the caller changes the node at once."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The last ack about a node."""

    at_ms: int
    """Redis ms at which it was said."""
    who: int
    """machine_id of the prober, or of the sender, that reached the node."""

    @classmethod
    def parse(cls, text: str) -> Confirmation:
        """Return the confirmation that Redis has as ``text``; raises ValueError."""
        match = re.fullmatch(r"(\d{1,16}) (\d{1,16})", text, re.ASCII)
        if match is None:
            raise ValueError(f"{text!r} is not 'ms machine_id'")
        return cls(int(match[1]), int(match[2]))


class SuspicionStore(Store):
    """Access to the suspicions of all clusters. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client)
        self._nodes = NodeStore(settings, self._client)

    def open(
        self,
        node: Node,
        kind: Kind,
        *,
        asking: int | None,
        reason: str,
        views: Views,
        observation: tuple[int, Observation] | None = None,
    ) -> Opened:
        """Open a suspicion of a node, and ask the first probers.

        ``asking``: the prober of the host whose attempt failed; None for the probe job and for a
        host without a prober. ``views``: all clusters; they tell which probers are on the node's
        own host. ``observation``: the sender, and what `PathStore.observe` answered with ASK to:
        the path event is added, unless the caller is alone.
        """
        for _ in range(_ATTEMPTS):
            found, probers, last, now_ms = self._look(node)
            if found is None or not _asks_for(kind, node, found):
                break
            chosen = choose_asked(
                probers,
                asking=asking,
                elsewhere=elsewhere(found, probers, views),
                confirmed_by=last.who if last is not None else None,
                now_ms=now_ms,
                turn=found.version,
            )
            if chosen is None:
                return Opened.ALONE
            asked, all_asked = chosen
            suspicion = Suspicion(
                0, found.version, kind, asked, frozenset(), all_asked, False, reason
            )
            event = event_of(*observation, now_ms) if observation else []
            opened = self._open(node.cluster, found, suspicion, event)
            if opened is not None:
                return opened
        return Opened.CHANGED

    def _look(self, node: Node) -> tuple[Node | None, dict[int, int], Confirmation | None, int]:
        """Return the node as it is now, the probers of its cluster, its last ack, and Redis ms."""
        key, machine_id = node.cluster, node.machine_id
        data, members, confirmed, time = self._read(
            f"suspect node {machine_id} of cluster {key}",
            ("hgetall", keys.node(*key, machine_id)),
            ("zrange", keys.probers(*key), 0, -1, False, True),
            ("hget", keys.confirmed(*key), machine_id),
            ("time",),
        )
        noted = {b"%d" % machine_id: confirmed} if confirmed else {}
        last = _confirmed(key, noted).get(machine_id)
        probers = times_of(keys.probers(*key), members)
        return decode_node(key, machine_id, data), probers, last, ms_of(time)

    def _open(
        self, key: ClusterKey, node: Node, suspicion: Suspicion, event: list[str]
    ) -> Opened | None:
        """Return None if the node changed meanwhile."""
        asked = sorted(suspicion.asked)
        names = [keys.node(*key, node.machine_id), keys.suspicions(*key)]
        names += [keys.path_events(key.cluster_id), keys.probers(*key)]
        names += [keys.prober_ring(prober) for prober in asked]
        undated = str(suspicion).partition(" ")[2]
        of_node = (node.version, node.machine_id, VOID_MS, str(key))
        arguments = (*of_node, undated, EVENTS_CAP, *asked, *event)
        what = f"suspect node {node.machine_id} of cluster {key}"
        wrong, code = self._run(what, "open_suspicion", names, *arguments)
        replaced(wrong)
        return Opened(code) if code else None

    def all(self, clusters: Iterable[ClusterKey]) -> dict[ClusterKey, dict[int, Suspicion]]:
        """Return the suspicions of clusters by machine_id, read in one round trip.

        What cannot be used is reported and left out.
        """
        return self._by_cluster("read suspicions", keys.suspicions, _suspicions, clusters)

    def confirmations(
        self, clusters: Iterable[ClusterKey]
    ) -> dict[ClusterKey, dict[int, Confirmation]]:
        """Return the last acks about nodes by machine_id, read in one round trip.

        What cannot be used is reported and left out.
        """
        return self._by_cluster("read confirmations", keys.confirmed, _confirmed, clusters)

    def _by_cluster(
        self,
        what: str,
        name: Callable[[int, str], str],
        decode: Callable[[ClusterKey, Mapping[bytes, bytes]], T],
        clusters: Iterable[ClusterKey],
    ) -> dict[ClusterKey, T]:
        """Return what ``decode`` makes of the hash ``name`` of each cluster."""
        wanted = list(clusters)
        found = self._read(what, *(("hgetall", name(*key)) for key in wanted))
        return {key: decode(key, data) for key, data in zip(wanted, found, strict=True)}

    def nack(
        self, key: ClusterKey, machine_id: int, suspicion: Suspicion, prober: int
    ) -> Suspicion | None:
        """Note that a prober that was asked first does not reach the node.

        Returns the suspicion as it is after it, None if it has ended or another is open.
        """
        what = f"answer about node {machine_id} of cluster {key}"
        arguments = machine_id, suspicion.since_ms, prober
        found = self._run(what, "nack", [keys.suspicions(*key)], *arguments)
        return Suspicion.parse(text(found)) if found else None

    def widen(self, key: ClusterKey, machine_id: int, suspicion: Suspicion) -> bool:
        """Ask all probers of the cluster, once; return whether this call did."""
        names = [keys.suspicions(*key), keys.probers_ring(*key)]
        what = f"ask about node {machine_id} of cluster {key}"
        arguments = machine_id, suspicion.since_ms, str(key)
        wrong, done = self._run(what, "widen", names, *arguments)
        replaced(wrong)
        return bool(done)

    def ack(
        self,
        node: Node,
        who: int,
        by: str,
        *,
        bytes_taken: bool = False,
        began_ms: int | None = None,
    ) -> bool:
        """Note that a host reached a node: its suspicion ends, its verdict becomes up.

        ``who``: machine_id of the prober or the sender. ``bytes_taken``: the node acknowledged
        bytes of packets, which also lifts a disabled node. ``began_ms``: Redis ms at which the
        attempt began: it must not be older than the suspicion, nor than `EVIDENCE_MS`. Returns
        whether the ack counts.
        """
        key = node.cluster
        names = [keys.node(*key, node.machine_id), keys.suspicions(*key), keys.confirmed(*key)]
        began = "" if began_ms is None else began_ms
        what = f"confirm node {node.machine_id} of cluster {key}"
        arguments = node.machine_id, node.generation, who, began, EVIDENCE_MS
        wrong, counts, kind = self._run(what, "ack", names, *arguments)
        replaced(wrong)
        if counts:
            self._lift(
                node, Cause(by), bytes_taken=bytes_taken, asked=text(kind) == Kind.PROBE.value
            )
        return bool(counts)

    def _lift(self, node: Node, cause: Cause, *, bytes_taken: bool, asked: bool) -> None:
        """Make the verdict up. ``asked``: a round of the probe job was open."""
        key = node.cluster
        for _ in range(_ATTEMPTS):
            found, _now = self._nodes.read(key, node.machine_id)
            if found is None or found.generation != node.generation:
                return
            event = Event.CONFIRMED
            if found.condition is Condition.DISABLED and not bytes_taken:
                event = Event.DURATION_ELAPSED
            if found.state is not State.PROBING or (event is Event.DURATION_ELAPSED and not asked):
                return
            if self._nodes.observe(found, event, cause) is not None:
                return


def _asks_for(kind: Kind, seen: Node, node: Node) -> bool:
    wanted = State.UP if kind is Kind.SUSPECT else State.PROBING
    return node.state is wanted and node.generation == seen.generation


def _by_node(
    name: str, data: Mapping[bytes, bytes], parse: Callable[[str], T], expected: str
) -> dict[int, T]:
    """Return the values in a hash by machine_id; report those that cannot be used."""
    found = {}
    for machine_id in ids(name, data):
        value = data[b"%d" % machine_id]
        try:
            found[machine_id] = parse(text(value))
        except ValueError:
            bad(name, f"field {machine_id}", value, expected)
    return found


def _suspicions(key: ClusterKey, data: Mapping[bytes, bytes]) -> dict[int, Suspicion]:
    return _by_node(keys.suspicions(*key), data, Suspicion.parse, "a suspicion")


def _confirmed(key: ClusterKey, data: Mapping[bytes, bytes]) -> dict[int, Confirmation]:
    return _by_node(keys.confirmed(*key), data, Confirmation.parse, "'ms machine_id'")
