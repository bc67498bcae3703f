"""What the sweep needs to know of all delivery queues, and the trimming of old packets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import redis

from clusterer.membership import Node
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.client import connect, translated
from clusterer.store.deliveries import FENCE_MS, LEASE_MS
from clusterer.store.encoding import as_text
from clusterer.store.scripts import script
from clusterer.store.views import ClusterKey

_NO_KEY = -2
"""What PTTL says of a key that does not exist."""

_TRIM_AT_ONCE = 100
"""Logs looked at in one round trip: Redis does nothing else meanwhile."""

_PLACES_AT_ONCE = 1000
"""Places in logs looked at in one script call, for the same reason."""

_LOOK_AT = 100
"""Entries searched for the first one of a cluster."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One delivery queue at one moment."""

    queue: str
    pending: tuple[int, ...]
    """Senders with an undrained log."""
    orphaned: tuple[int, ...]
    """Those of them that nobody drains."""
    waiting: tuple[int, ...]
    """Senders whose log only waits for nodes to come up."""
    waking_ms: int | None
    """For how long a wake-up is said to be on its way, None if none is."""


class BacklogStore:
    """Delivery queues as the sweep sees them."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._client = client or connect(settings)

    def queues(self) -> list[QueueState]:
        """Return the state of every delivery queue; two round trips."""
        with translated(self._settings, "look at the delivery queues"):
            names = sorted(map(as_text, self._client.smembers(keys.QUEUES)))
            if not names:
                return []
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            for name in names:
                pipe.smembers(keys.pending(name))
                pipe.smembers(keys.waiting(name))
                pipe.get(keys.wake(name))
            (seconds, micros), *replies = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        return [
            self._state(name, now_ms, *replies[at : at + 3])
            for name, at in zip(names, range(0, len(replies), 3), strict=True)
        ]

    def _state(
        self, name: str, now_ms: int, pending: set[bytes], waiting: set[bytes], wake: bytes | None
    ) -> QueueState:
        senders = tuple(sorted(map(int, pending)))
        orphaned: tuple[int, ...] = ()
        if senders:
            with translated(self._settings, "read leases"):
                left = self._lease_times(senders)
            orphaned = tuple(s for s, ms in zip(senders, left, strict=True) if ms == _NO_KEY)
        waking_ms = None if wake is None else now_ms - int(wake)
        return QueueState(name, senders, orphaned, tuple(sorted(map(int, waiting))), waking_ms)

    def _lease_times(self, senders: Sequence[int]) -> list[int]:
        """Return how many ms the senders' leases live, `_NO_KEY` for those that are not leased.

        A lease that lives longer than any is from before Redis's clock was put back. It gets the
        time of one; who holds it renews it, if there still is somebody.
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
        """Return (cluster_id, machine_id, generation) of cursors not at the log's end."""
        with translated(self._settings, f"read the cursors of machine {sender}"):
            pipe = self._client.pipeline(transaction=True)
            pipe.hget(keys.counters(sender), "sequence")
            pipe.hgetall(keys.cursor(sender))
            tail, cursors = pipe.execute()
        found = []
        for field, cursor in cursors.items():
            if int(cursor) < int(tail or 0):
                cluster_id, machine_id, generation = as_text(field).split("/")
                found.append((int(cluster_id), int(machine_id), int(generation)))
        return found

    def unread(self, sender: int, node: Node) -> tuple[int | None, int]:
        """Return how many packets wait for a node to which nothing was delivered yet, since when.

        None if the log's beginning does not tell; the time is Redis ms, 0 if nothing waits.
        """
        key = ClusterKey(node.cluster_id, node.protocol)
        with translated(self._settings, f"look into the log of machine {sender}"):
            counters = {
                as_text(k): int(v) for k, v in self._client.hgetall(keys.counters(sender)).items()
            }
            tail = counters.get("sequence", 0)
            start = script("seek")(
                self._client,
                [keys.log(sender), keys.counters(sender)],
                node.generation,
                tail,
            )
            found = self._client.xrange(keys.log(sender), str(start + 1), "+", _LOOK_AT)
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        if not entries:
            return 0, 0
        own = ((i, f) for i, f in entries if f.get(b"cluster") == b"%d" % key.cluster_id)
        entry_id, first = next(own, (entries[0][0], {}))
        since_ms = int(entry_id.partition(b"-")[2])
        try:
            before = int(first[b"n"]) - int(first[b"packets"])
        except (KeyError, ValueError):  # none of this cluster, or one that cannot be read
            return None, since_ms
        return counters.get(str(key), 0) - before, since_ms

    def appended_ms(self, places: Sequence[tuple[int, int]]) -> list[int]:
        """Return for each (sender, sequence) when the packet after it was appended.

        In Redis ms; 0 if there is no such packet. One round trip for each 1,000 places.
        """
        if not places:
            return []
        found: list[int] = []
        with translated(self._settings, "look into the packet logs"):
            for first in range(0, len(places), _PLACES_AT_ONCE):
                some = places[first : first + _PLACES_AT_ONCE]
                names = [keys.log(sender) for sender, _ in some]
                found += script("appended")(self._client, names, *(at for _, at in some))
        return found

    def resume(self, queue: str, sender: int) -> None:
        """Make a waiting sender pending: a node it waits for is up."""
        with translated(self._settings, f"resume deliveries of machine {sender}"):
            self._client.smove(keys.waiting(queue), keys.pending(queue), str(sender))

    def end_handovers(self) -> None:
        """End the hand-overs whose worker died: what their fences kept in the logs is trimmed."""
        lua = script("end_handover")
        with translated(self._settings, "end hand-overs"):
            for sender in map(int, self._client.smembers(keys.HANDOVERS)):
                names = (keys.lease, keys.fence, keys.cursor, keys.log)
                used = [keys.HANDOVERS, *(name(sender) for name in names)]
                lua(self._client, used, sender, FENCE_MS)

    def trim(self, senders: Iterable[int], max_age_s: float) -> None:
        """Drop packets of the senders' logs that are older than ``max_age_s`` seconds."""
        logs = [keys.log(sender) for sender in senders]
        with translated(self._settings, "trim packet logs"):
            for at in range(0, len(logs), _TRIM_AT_ONCE):
                some = logs[at : at + _TRIM_AT_ONCE]
                script("trim_old")(self._client, some, int(max_age_s * 1000))

    def call_worker(self, queue: str, *, lost: bool) -> bool:
        """Ring for a worker; True if the caller must enqueue a delivery job.

        ``lost`` says that the wake-up said to be on its way is known to be lost.
        """
        with translated(self._settings, f"call a worker of queue {queue}"):
            names = [keys.wake(queue), keys.doorbell(queue)]
            return bool(script("call_worker")(self._client, names, int(lost)))
