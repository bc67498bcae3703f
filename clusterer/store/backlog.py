"""The delivery queues and their backlog: for the sweep, the delivery workers and the status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import redis

from clusterer.errors import WrongKey
from clusterer.membership import Node
from clusterer.store import keys
from clusterer.store.badvalues import (
    Command,
    WrongType,
    bad,
    batches,
    blame,
    field_number,
    ids,
    number,
    read_all,
    text,
)
from clusterer.store.client import Store, ms_of, translated
from clusterer.store.deliveries import GUARD_MS, LEASE_MS
from clusterer.store.scripts import Call, run_each

HOLD_OFF_MS = 500
"""Life of the enqueued flag that a worker sets when the worker may claim none of the senders: no
sender enqueues a delivery job in this time. append.lua has the number too."""

_NO_KEY = -2
"""Reply of PTTL for a missing key."""

_TRIM_AT_ONCE = 100
"""Logs per round trip: Redis serves no other client meanwhile."""

_PLACES_AT_ONCE = 1000
"""Places in logs per script call, for the same reason."""

_LOOK_AT = 100
"""Most entries to search for the first entry of a cluster."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One delivery queue at one moment."""

    queue: str
    pending: tuple[int, ...]
    """Senders whose log has packets to deliver."""
    orphaned: tuple[int, ...]
    """Pending senders whose log no worker has leased."""
    waiting: tuple[int, ...]
    """Senders whose log only waits for nodes to come up."""
    enqueued_ms: int | None
    """Age of the enqueued flag, None without one."""
    now_ms: int
    """The moment, by the clock of Redis."""


def queue_names(client: redis.Redis) -> tuple[set[str], list[str]]:
    """Return the names of the delivery queues, and a description of each value that is no name.

    Raises errors of redis-py.
    """
    (members,) = read_all(client, [("smembers", keys.QUEUES)])
    if isinstance(members, WrongType):
        return set(), [f"{keys.QUEUES}, which is of the wrong type"]
    names, unreadable = set(), []
    for member in members:
        name = member.decode("utf-8", "replace")
        if name.isprintable() and "\ufffd" not in name:
            names.add(name)
        else:
            unreadable.append(f"member {member[:60]!r} of {keys.QUEUES}")
    return names, unreadable


class BacklogStore(Store):
    """Reads the delivery queues and the logs of their senders, and changes them."""

    def queues(self) -> list[QueueState]:
        """Return the state of every delivery queue; two round trips."""
        what = "look at the delivery queues"
        (members,) = self._read(what, ("smembers", keys.QUEUES))
        names = sorted(map(text, members))
        commands: list[Command] = [("time",)]
        for name in names:
            commands += [
                ("smembers", keys.pending(name)),
                ("smembers", keys.waiting(name)),
                ("get", keys.enqueued(name)),
            ]
        time, *replies = self._read(what, *commands)
        now_ms = ms_of(time)
        return [
            self._state(name, now_ms, *replies[at : at + 3])
            for name, at in zip(names, range(0, len(replies), 3), strict=True)
        ]

    def _state(
        self,
        name: str,
        now_ms: int,
        pending: set[bytes],
        waiting: set[bytes],
        enqueued: bytes | None,
    ) -> QueueState:
        senders = tuple(ids(keys.pending(name), pending))
        orphaned: tuple[int, ...] = ()
        if senders:
            with translated(self._settings, "read leases"):
                left = self._lease_times(senders)
            orphaned = tuple(s for s, ms in zip(senders, left, strict=True) if ms == _NO_KEY)
        since_ms = number(keys.enqueued(name), "value", enqueued)
        enqueued_ms = None if enqueued is None else now_ms - since_ms
        return QueueState(
            name, senders, orphaned, tuple(ids(keys.waiting(name), waiting)), enqueued_ms, now_ms
        )

    def _lease_times(self, senders: Sequence[int]) -> list[int]:
        """Return the ms that the senders' leases still live, `_NO_KEY` without a lease.

        A lease that lives longer than `LEASE_MS` is from before Redis's clock went back. The lease
        gets `LEASE_MS`; a worker that still holds the lease renews it.
        """
        pipe = self._client.pipeline(transaction=False)
        for sender in senders:
            pipe.pttl(keys.lease(sender))
        left: list[int] = pipe.execute()
        for sender, ms in zip(senders, left, strict=True):
            if ms > LEASE_MS:
                self._client.pexpire(keys.lease(sender), LEASE_MS)
        return left

    def behind(self, sender: int) -> list[tuple[int, int, int]]:
        """Return (cluster_id, machine_id, generation) of committed offsets not at the log's end."""
        sequence, offsets = self._read(
            f"read the committed offsets of sender {sender}",
            ("hget", keys.counters(sender), "sequence"),
            ("hgetall", keys.committed(sender)),
        )
        tail = number(keys.counters(sender), "field sequence", sequence)
        return [
            place
            for field, offset in offsets.items()
            if (place := _destination(sender, field)) is not None
            and number(keys.committed(sender), f"field {text(field)}", offset, tail) < tail
        ]

    def unread(self, sender: int, node: Node) -> tuple[int | None, int]:
        """Return the number of packets that wait for a node without a delivery so far, and since
        when: Redis ms, 0 if no packet waits.

        The number is None if the beginning of the log does not show it.
        """
        key = node.cluster
        what = f"read the log of sender {sender}"
        log, key_of_counters = keys.log(sender), keys.counters(sender)
        (counters,) = self._read(what, ("hgetall", key_of_counters))
        tail = field_number(key_of_counters, counters, "sequence")
        try:
            start = self._run(what, "seek", [log, key_of_counters], node.generation, tail)
        except WrongKey:  # a key that is no log must not hide the others
            with translated(self._settings, what):
                blame(self._client, [log, key_of_counters])
            return None, 0
        (found,) = self._read(what, ("xrange", log, str(start + 1), "+", _LOOK_AT))
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        if not entries:
            return 0, 0
        own = ((i, f) for i, f in entries if f.get(b"cluster") == b"%d" % key.cluster_id)
        entry_id, first = next(own, (entries[0][0], {}))
        place, since_ms = f"entry {text(entry_id)}", int(entry_id.partition(b"-")[2])
        n, packets = (
            number(log, f"{place}, field {name}", first.get(name.encode()), -1)
            for name in ("n", "packets")
        )
        if n < 0 or packets < 0:
            return None, since_ms
        sent = field_number(key_of_counters, counters, str(key))
        return max(0, sent - (n - packets)), since_ms

    def appended_ms(self, places: Sequence[tuple[int, int]]) -> list[int]:
        """Return for each (sender, sequence) the time at which the next packet was appended.

        In Redis ms; 0 without a next packet. One round trip for each 1,000 places.
        """
        found: list[int] = []
        for some in batches(places, _PLACES_AT_ONCE):
            logs = [keys.log(sender) for sender, _ in some]
            sequences = (sequence for _, sequence in some)
            found += self._run("look into the packet logs", "appended", logs, *sequences)
        return found

    def resume(self, queue: str, sender: int) -> None:
        """Make a waiting sender pending: a node that lacks packets is up."""
        with translated(self._settings, f"resume deliveries of sender {sender}"):
            self._client.smove(keys.waiting(queue), keys.pending(queue), str(sender))

    def end_handovers(self) -> None:
        """End the hand-overs of dead workers: trim the entries that their guards kept."""
        (members,) = self._read("end hand-overs", ("smembers", keys.HANDOVERS))
        names = (keys.lease, keys.closing, keys.committed, keys.log)
        calls = [
            Call(
                "end_handover", [keys.HANDOVERS, *(of(sender) for of in names)], (sender, GUARD_MS)
            )
            for sender in ids(keys.HANDOVERS, members)
        ]
        with translated(self._settings, "end hand-overs"):
            run_each(self._client, calls)

    def trim(self, senders: Iterable[int], max_age_s: float) -> None:
        """Trim the packets of the senders' logs that are older than ``max_age_s`` seconds."""
        for logs in batches(map(keys.log, senders), _TRIM_AT_ONCE):
            self._run("trim packet logs", "trim_old", logs, int(max_age_s * 1000))

    def hold_off(self, queue: str) -> None:
        """Set the enqueued flag for a while: senders that wait for another host enqueue no jobs."""
        with translated(self._settings, "set the enqueued flag of a queue"):
            now_ms = ms_of(self._client.time())
            self._client.set(keys.enqueued(queue), now_ms, nx=True, px=HOLD_OFF_MS)

    def call_worker(self, queue: str, *, lost: bool) -> bool:
        """Add an entry to the queue's ring; return True if the caller must enqueue a delivery job.

        ``lost``: the enqueued flag is set, and its delivery job is lost.
        """
        names = [keys.enqueued(queue), keys.ring(queue)]
        return bool(
            self._run(f"add an entry to the ring of queue {queue}", "call_worker", names, int(lost))
        )


def _destination(sender: int, field: bytes) -> tuple[int, int, int] | None:
    """Return cluster_id, machine_id and generation of a committed offset's field."""
    parts = text(field).split("/")
    if len(parts) != 3 or not all(part.isdecimal() and part.isascii() for part in parts):
        bad(keys.committed(sender), "field", field, "cluster_id/machine_id/generation")
        return None
    cluster_id, machine_id, generation = map(int, parts)
    return cluster_id, machine_id, generation
