"""The worker's end of the packet logs: leases, cursors, fences, wake-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.channel import Channel, evalsha
from clusterer.store.client import connect, translated
from clusterer.store.destinations import forget
from clusterer.store.scripts import script
from clusterer.store.views import ClusterKey

LEASE_MS = 1000
"""Life of an unrenewed lease: how long a killed worker's log waits at the least."""

HOLD_OFF_MS = 500
"""Time in which a worker that found only senders it may not claim is not called again for them;
append.lua knows the number too."""

FENCE_MS = 1000
"""Life of an unrenewed fence."""

_SINCE = "since "

LogEntry = tuple[bytes, list[bytes]]
"""Id and flat fields of one entry, as Redis sends it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Where the deliveries of a sender stand at the moment its lease was taken."""

    sender: int
    tail: int
    """Sequence of the last packet appended."""
    counts: Mapping[ClusterKey, int]
    """Packets ever appended, by cluster."""
    since_ms: Mapping[ClusterKey, int]
    """Redis ms of each cluster's first packet."""
    cursors: Mapping[str, int]
    """``cluster/machine/generation`` → sequence of the last whole frame written."""
    positions: Mapping[str, int]
    """The same → the cluster's packet count there."""
    fenced: frozenset[str]
    """Destinations to which another worker's connection may still be open."""


@dataclass(frozen=True, slots=True)
class Move:
    """A cursor that moved."""

    field: str
    sequence: int
    n: int | None


@dataclass(frozen=True, slots=True)
class Fences:
    """The fences of a sender at one moment; fields are ``cluster/machine/generation``."""

    up: frozenset[str]
    cursors: Mapping[str, int]
    positions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Commit:
    """What is to be recorded of one sender's deliveries."""

    sender: int
    moves: Sequence[Move]
    counters: Mapping[str, int | str]
    """Counter → increment, or 'now' for the time."""
    needed_from: int | None
    """First sequence that is still to be delivered: the log may be trimmed below it. None trims
    nothing."""


class Released(Enum):
    """What became of a lease that was to be given back; the values are release.lua's."""

    LOST = -1
    KEPT = 0
    """More has come in the meantime."""
    DRAINED = 1
    UNDRAINED = 2


class DrainStore:
    """What a delivery worker does in Redis. Not for more than one thread at a time."""

    def __init__(
        self, settings: Settings, queue: str, token: str, client: redis.Redis | None = None
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._token = token
        self._client = client or connect(settings)
        # Entries as Redis sends them: redis-py would make a dict of each.
        self._client.set_response_callback("XRANGE", lambda reply, **_: reply)
        self._channel = Channel(settings)

    def pending(self) -> list[int]:
        """Return the senders of the queue with an undrained log, in order."""
        with translated(self._settings, "list pending senders"):
            return sorted(int(s) for s in self._client.smembers(keys.pending(self._queue)))

    def leased(self, senders: Sequence[int]) -> set[int]:
        """Return those of ``senders`` whose log somebody drains."""
        if not senders:
            return set()
        with translated(self._settings, "read leases"):
            found = self._client.mget([keys.lease(sender) for sender in senders])
        return {s for s, token in zip(senders, found, strict=True) if token is not None}

    def claim(self, sender: int) -> Claim | None:
        """Take the lease of a pending sender, None if it is not to be had."""
        with translated(self._settings, f"claim the log of machine {sender}"):
            reply = script("claim")(
                self._client,
                [
                    keys.lease(sender),
                    keys.pending(self._queue),
                    keys.cursor(sender),
                    keys.position(sender),
                    keys.counters(sender),
                    keys.fence(sender),
                    keys.SENDERS,
                ],
                self._token,
                LEASE_MS,
                sender,
            )
        return None if reply is None else _claim(sender, reply)

    def renew(self, senders: Sequence[int]) -> set[int]:
        """Renew leases; return the senders whose lease is lost."""
        with translated(self._settings, "renew leases"):
            held = script("renew")(
                self._client, [keys.lease(s) for s in senders], self._token, LEASE_MS
            )
        return {s for s, one in zip(senders, held, strict=True) if not one}

    def commit(self, commits: Sequence[Commit]) -> set[int]:
        """Record what was delivered, and renew; return the senders whose lease is lost.

        One round trip, however many senders they are.
        """
        with translated(self._settings, "record deliveries"):
            replies = self._channel.run(
                script("commit_delivery"), [self._commit_call(c) for c in commits]
            )
        return {c.sender for c, held in zip(commits, replies, strict=True) if not held}

    def _commit_call(self, commit: Commit) -> bytes:
        sender = commit.sender
        arguments = [self._token, str(LEASE_MS)]
        arguments.append("" if commit.needed_from is None else str(commit.needed_from))
        arguments.append(str(len(commit.moves)))
        for move in commit.moves:
            arguments += (move.field, str(move.sequence), "" if move.n is None else str(move.n))
        for name, increment in commit.counters.items():
            arguments += (name, str(increment))
        names = (keys.lease, keys.cursor, keys.position, keys.stats, keys.log)
        used = [name(sender) for name in names]
        return evalsha(script("commit_delivery"), str(len(used)), *used, *arguments)

    def release(
        self,
        sender: int,
        reached: int,
        needed_from: int,
        fenced: Sequence[str],
        *,
        waiting: bool,
        undrained: bool,
    ) -> Released:
        """Give the lease back; with ``undrained`` also if more is to be delivered."""
        with translated(self._settings, f"release the log of machine {sender}"):
            return Released(
                script("release")(
                    self._client,
                    [
                        keys.lease(sender),
                        keys.pending(self._queue),
                        keys.waiting(self._queue),
                        keys.counters(sender),
                        keys.fence(sender),
                        keys.log(sender),
                    ],
                    self._token,
                    sender,
                    reached,
                    int(waiting),
                    int(undrained),
                    FENCE_MS,
                    needed_from,
                    *fenced,
                )
            )

    def read(self, sender: int, after: int, count: int) -> list[LogEntry]:
        """Return up to ``count`` log entries that follow sequence ``after``."""
        with translated(self._settings, f"read the log of machine {sender}"):
            reply = self._client.xrange(keys.log(sender), str(after + 1), "+", count)
        return cast("list[LogEntry]", reply)

    def read_on(
        self, sender: int, after: int, count: int, clusters: Sequence[ClusterKey]
    ) -> tuple[list[LogEntry], dict[ClusterKey, int]]:
        """Return the same, and the clusters' versions as they were after the read."""
        with translated(self._settings, f"read the log of machine {sender}"):
            pipe = self._client.pipeline(transaction=False)
            pipe.xrange(keys.log(sender), str(after + 1), "+", count)
            pipe.mget([keys.version(*key) for key in clusters])
            entries, versions = pipe.execute()
        known = zip(clusters, versions, strict=True)
        return entries, {key: int(version or 0) for key, version in known}

    def seek(self, sender: int, generation: int, tail: int) -> int:
        """Return the sequence after which a node of this generation starts."""
        with translated(self._settings, f"search the log of machine {sender}"):
            return int(script("seek")(self._client, [keys.log(sender)], generation, tail))

    def fences(self, sender: int) -> Fences:
        """Return which fences are up, and how far the deliveries to all nodes have got."""
        with translated(self._settings, f"read the fences of machine {sender}"):
            pipe = self._client.pipeline(transaction=True)
            pipe.time()
            for name in (keys.fence, keys.cursor, keys.position):
                pipe.hgetall(name(sender))
            (seconds, micros), fences, cursors, positions = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        up = (field.decode() for field, value in fences.items() if _stands(value, now_ms))
        return Fences(frozenset(up), _numbers(cursors), _numbers(positions))

    def fence(self, sender: int, field: str) -> bool:
        """Keep one of our fences up; False if it is gone."""
        with translated(self._settings, f"renew a fence of machine {sender}"):
            reply = script("fence")(
                self._client, [keys.fence(sender)], field, self._token, FENCE_MS
            )
        return bool(reply)

    def unfence(
        self, sender: int, field: str, move: Move | None, counters: Mapping[str, int | str]
    ) -> bool:
        """Take one of our fences down, moving the cursor; False if it was not ours any more."""
        with translated(self._settings, f"take down a fence of machine {sender}"):
            reply = script("unfence")(
                self._client,
                [
                    keys.fence(sender),
                    keys.cursor(sender),
                    keys.position(sender),
                    keys.stats(sender),
                    keys.pending(self._queue),
                    keys.counters(sender),
                ],
                field,
                self._token,
                "" if move is None else move.sequence,
                "" if move is None or move.n is None else move.n,
                sender,
                *(part for pair in counters.items() for part in pair),
            )
        return bool(reply)

    def forget(self, sender: int, fields: Sequence[str]) -> None:
        """Delete what is kept of a sender's deliveries to nodes that are gone."""
        if not fields:
            return
        with translated(self._settings, f"forget cursors of machine {sender}"):
            pipe = self._client.pipeline(transaction=True)
            forget(pipe, sender, fields)
            pipe.execute()

    def totals(self, sender: int) -> tuple[int, dict[ClusterKey, int]]:
        """Return the sequence of a sender's last packet, and its packets ever by cluster."""
        with translated(self._settings, f"read the counters of machine {sender}"):
            found = _numbers(self._client.hgetall(keys.counters(sender)))
        return found.get("sequence", 0), _by_cluster(found)

    def call_worker(self, *, lost: bool = False) -> bool:
        """Ring for a worker; True if the caller must enqueue a delivery job.

        ``lost`` says that the wake-up which seems to be on its way is known to be lost.
        """
        with translated(self._settings, "call a delivery worker"):
            names = [keys.wake(self._queue), keys.doorbell(self._queue)]
            return bool(script("call_worker")(self._client, names, int(lost)))

    def hold_off(self) -> None:
        """Keep senders that nobody here may claim from enqueuing a job with every packet."""
        with translated(self._settings, "hold off wake-ups"):
            seconds, micros = self._client.time()
            now_ms = seconds * 1000 + micros // 1000
            self._client.set(keys.wake(self._queue), now_ms, nx=True, px=HOLD_OFF_MS)

    def begin(self) -> tuple[str, list[int]]:
        """Say that the queued wake-up has arrived.

        Returns the doorbell's last id and the senders that were pending after it: who reads the
        doorbell from there misses nobody.
        """
        with translated(self._settings, "begin a delivery job"):
            pipe = self._client.pipeline(transaction=True)
            pipe.delete(keys.wake(self._queue))
            pipe.xrevrange(keys.doorbell(self._queue), count=1)
            pipe.smembers(keys.pending(self._queue))
            _, rings, senders = pipe.execute()
        return (rings[0][0].decode() if rings else "0"), sorted(map(int, senders))


def _claim(sender: int, reply: list[Any]) -> Claim:
    cursors, positions, counters, fences, now_ms = reply
    numbers = {name: int(value) for name, value in _pairs(counters).items()}
    return Claim(
        sender=sender,
        tail=numbers.get("sequence", 0),
        counts=_by_cluster(numbers),
        since_ms=_by_cluster(numbers, _SINCE),
        cursors={field: int(value) for field, value in _pairs(cursors).items()},
        positions={field: int(value) for field, value in _pairs(positions).items()},
        fenced=frozenset(
            field for field, value in _pairs(fences).items() if _stands(value, int(now_ms))
        ),
    )


def _stands(fence: bytes, now_ms: int) -> bool:
    """Whether a fence is up. One that ends far in the future is from before a clock was put back;
    claim.lua knows that too.
    """
    return now_ms <= int(fence.split()[0]) <= now_ms + 5 * LEASE_MS


def _by_cluster(counters: Mapping[str, int], prefix: str = "") -> dict[ClusterKey, int]:
    """Return those of a sender's counters that are about clusters."""
    return {
        ClusterKey.parse(name.removeprefix(prefix)): value
        for name, value in counters.items()
        if name.startswith(prefix) and ":" in name and (prefix or not name.startswith(_SINCE))
    }


def _pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _numbers(data: Mapping[Any, Any]) -> dict[str, int]:
    return {field.decode(): int(value) for field, value in data.items()}
