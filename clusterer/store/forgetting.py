"""Reads and deletes the data of machine_ids and queues that are no longer used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clusterer.store import keys
from clusterer.store.backlog import QueueState
from clusterer.store.badvalues import Command, field_number, ids, read_all, scan, text
from clusterer.store.client import Store, translated
from clusterer.store.node_change import EVENTS_CAP
from clusterer.store.receptions import watches_in
from clusterer.store.scripts import Call, run_each

SAMPLE = 1000
"""Members of a set that one look takes at random: some looks find all members."""

_CLUSTER = re.compile(r"([1-9]\d{0,9}):[^: ]+", re.ASCII)
_SENDER = (
    keys.log,
    keys.counters,
    keys.committed,
    keys.committed_count,
    keys.stats,
    keys.lease,
    keys.closing,
    keys.paths,
    keys.sums,
)
_INSTANCE = (
    keys.modules,
    keys.notices,
    keys.capture,
    keys.prober_ring,
    keys.listings,
    keys.inquiries,
    keys.links,
)


@dataclass(frozen=True, slots=True)
class Traces:
    """The data of one machine_id as sender and as instance. Times are Redis ms."""

    machine_id: int
    packets: int
    """Packets that the sender's log ever had."""
    entries: int
    """Entries in the sender's log: packets that a node has not received."""
    leased: bool
    """Whether a worker has leased the sender's log."""
    alive_ms: int
    """Start or last heartbeat of the instance; 0 without one."""
    clusters: frozenset[int]
    """Clusters to which the sender sent, or for which the instance registered a module."""
    clocks: tuple[str, ...]
    """Keys with the clocks and mutes of the instance's registrations."""
    keys: tuple[str, ...]
    """All keys of the machine_id that exist."""
    member: bool
    """Whether a set of senders, instances or a queue has the machine_id."""

    def __bool__(self) -> bool:
        return bool(self.keys or self.member)


class ForgetStore(Store):
    """Reads and deletes the data of machine_ids and queues. Raises `StateUnavailable`."""

    def traces(self, machine_id: int) -> Traces:
        """Return the data of a machine_id; takes a scan."""
        with translated(self._settings, f"find the data of machine_id {machine_id}"):
            clocks = self._clocks(machine_id)
            named = [*self._of_queues(), keys.SENDERS, keys.INSTANCES, keys.HANDOVERS]
            own = [of(machine_id) for of in (*_SENDER, *_INSTANCE)]
            commands: list[Command] = [("sismember", name, machine_id) for name in named]
            commands += [("exists", name) for name in (*own, *clocks)]
            counters, modules, entries, *found = read_all(
                self._client,
                [
                    ("hgetall", keys.counters(machine_id)),
                    ("hgetall", keys.modules(machine_id)),
                    ("xlen", keys.log(machine_id)),
                    *commands,
                ],
            )
        there = zip((*own, *clocks), found[len(named) :], strict=True)
        exist = tuple(sorted(name for name, exists in there if exists))
        return Traces(
            machine_id,
            packets=field_number(keys.counters(machine_id), counters, "sequence"),
            entries=entries,
            leased=keys.lease(machine_id) in exist,
            alive_ms=_alive_ms(machine_id, modules),
            clusters=_clusters(machine_id, counters, modules),
            clocks=clocks,
            keys=exist,
            member=any(found[: len(named)]),
        )

    def forget(self, traces: Traces, alive_since_ms: int, *, force: bool) -> bool:
        """Delete the data of a machine_id; False if it is in use after all (never with ``force``).

        ``alive_since_ms``: an instance with a later heartbeat is alive.
        """
        machine_id, forced = traces.machine_id, int(force)
        with translated(self._settings, f"delete the data of machine_id {machine_id}"):
            instance = _instance_call(machine_id, traces.clocks, alive_since_ms, forced)
            sender = _sender_call(machine_id, self._of_queues(), "", forced)
            return bool(instance.run(self._client) and sender.run(self._client))

    def note(self, traces: Traces, fields: Mapping[str, str]) -> None:
        """Add an event to the audit of each cluster of the machine_id."""
        with translated(self._settings, "add events about deleted data"):
            clusters = traces.clusters or {
                int(found[1])
                for name in read_all(self._client, [("smembers", keys.CLUSTERS)])[0]
                if (found := _CLUSTER.fullmatch(text(name)))
            }
            pipe = self._client.pipeline(transaction=False)
            event: Any = dict(fields)
            for cluster_id in sorted(clusters):  # the event starts no new stream
                pipe.xadd(keys.events(cluster_id), event, maxlen=EVENTS_CAP, nomkstream=True)
            pipe.execute(raise_on_error=False)

    def unused_instances(self, before_ms: int) -> list[int]:
        """Delete the data of instances not alive since ``before_ms``; return their ids."""
        with translated(self._settings, "delete the data of unused instances"):
            sample = self._sample(keys.INSTANCES)
            hashes = read_all(self._client, [("hgetall", keys.modules(i)) for i in sample])
            calls = {}
            for machine_id, fields in zip(sample, hashes, strict=True):
                if _alive_ms(machine_id, fields) < before_ms:
                    clocks = _registered(machine_id, fields)
                    calls[machine_id] = _instance_call(machine_id, clocks, before_ms, 0)
            return self._run_all(calls)

    def unused_senders(
        self, before_ms: int, kept: Iterable[int], queues: Iterable[QueueState]
    ) -> list[int]:
        """Delete the data of senders with an empty log, unused since ``before_ms``; return their
        ids.

        ``kept``: senders that stay in any case; ``queues``: all delivery queues.
        """
        named = _sets_of_senders(queues)
        with translated(self._settings, "delete the data of unused senders"):
            sample = set(self._sample(keys.SENDERS)) - set(kept)
            return self._run_all(
                {i: _sender_call(i, named.get(i, ()), before_ms, 0) for i in sorted(sample)}
            )

    def unused_queue(self, queue: str, before_ms: int) -> bool:
        """Delete a queue without senders, unused since ``before_ms``; return whether it is gone."""
        of = (keys.pending, keys.waiting, keys.enqueued, keys.ring)
        names = [keys.QUEUES, *(name(queue) for name in of)]
        with translated(self._settings, f"delete queue {queue}"):
            (done,) = run_each(self._client, [Call("forget_queue", names, (queue, before_ms))])
        return bool(done)

    def _run_all(self, calls: Mapping[int, Call]) -> list[int]:
        if not calls:
            return []
        replies = run_each(self._client, list(calls.values()))
        return [machine_id for machine_id, done in zip(calls, replies, strict=True) if done]

    def _sample(self, key: str) -> list[int]:
        (members,) = read_all(self._client, [("srandmember", key, SAMPLE)])
        return ids(key, members)

    def _of_queues(self) -> list[str]:
        (queues,) = read_all(self._client, [("smembers", keys.QUEUES)])
        names = sorted(map(text, queues))
        return [of(name) for name in names for of in (keys.pending, keys.waiting)]

    def _clocks(self, machine_id: int) -> tuple[str, ...]:
        patterns = (f"clusterer:last-seen:{machine_id}:*", f"clusterer:muted:{machine_id}:*")
        return tuple(sorted({name for each in patterns for name in scan(self._client, each)}))


def _sets_of_senders(queues: Iterable[QueueState]) -> dict[int, list[str]]:
    """Return the pending and waiting sets that have each sender."""
    named: dict[int, list[str]] = {}
    for state in queues:
        for name, senders in ((keys.pending, state.pending), (keys.waiting, state.waiting)):
            for sender in senders:
                named.setdefault(sender, []).append(name(state.queue))
    return named


def _sender_call(sender: int, named: Iterable[str], before_ms: int | str, forced: int) -> Call:
    own = (of(sender) for of in _SENDER)
    names = [keys.SENDERS, keys.HANDOVERS, *own, keys.PATHS, *named]
    return Call("forget_sender", names, (sender, before_ms, forced))


def _instance_call(receiver: int, clocks: Iterable[str], before_ms: int, forced: int) -> Call:
    own = (of(receiver) for of in _INSTANCE)
    names = [keys.INSTANCES, *own, *clocks]
    return Call("forget_instance", names, (receiver, before_ms, forced))


def _registered(receiver: int, modules: Mapping[bytes, bytes]) -> list[str]:
    watches = watches_in(receiver, modules)
    return [name for watch in watches for name in (watch.last_seen, watch.muted)]


def _clusters(
    machine_id: int, counters: Mapping[bytes, bytes], modules: Mapping[bytes, bytes]
) -> frozenset[int]:
    sent = {int(found[1]) for name in counters if (found := _CLUSTER.fullmatch(text(name)))}
    registered = {watch.cluster_id for watch in watches_in(machine_id, modules)}
    return frozenset(sent | registered) - {0}


def _alive_ms(receiver: int, modules: Mapping[bytes, bytes]) -> int:
    key = keys.modules(receiver)
    return max(field_number(key, modules, name) for name in ("begun", "heartbeat"))
