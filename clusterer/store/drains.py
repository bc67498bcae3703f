"""What a delivery worker does in Redis: leases, committed offsets, closing guards, ring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import ids, pairs
from clusterer.store.channel import Channel, evalsha
from clusterer.store.client import translated
from clusterer.store.deliveries import (
    GUARD_MS,
    LEASE_MS,
    Claim,
    ClosingGuards,
    Commit,
    Move,
    Released,
    Renewed,
    claim_of,
    guards_of,
)
from clusterer.store.destinations import forget
from clusterer.store.format import require_format
from clusterer.store.log_reads import LogReads
from clusterer.store.paths import counters_of
from clusterer.store.same_replid import SameReplid
from clusterer.store.scripts import script
from clusterer.store.usable import SenderUnusable, of_sender, wrong_keys

HOLD_OFF_MS = 500
"""Life of the enqueued flag that a worker sets when the worker may claim none of the senders: no
sender enqueues a delivery job in this time. append.lua has the number too."""

SHARE_MS, SHARES_MS = 2000, 600_000
"""Life of a worker's number of senders for the other workers, and of the key with all numbers."""


class DrainStore(LogReads):
    """Takes, renews and releases leases of logs, and records deliveries.

    Not for more than one thread at a time.
    """

    def __init__(
        self, settings: Settings, queue: str, token: str, client: redis.Redis | None = None
    ) -> None:
        super().__init__(settings, client)
        self._queue = queue
        self._token = token
        self._number = crc32(token.encode())
        self._replid = SameReplid()
        self._channel = Channel(settings, lambda: self._replid.check(self._channel))

    def pending(self) -> list[int]:
        """Return the senders of the queue with an undrained log, in order."""
        with translated(self._settings, "list pending senders"):
            return self._senders(self._client.smembers(keys.pending(self._queue)))

    def _senders(self, members: Iterable[Any]) -> list[int]:
        return ids(keys.pending(self._queue), members)

    def leased(self, senders: Sequence[int]) -> set[int]:
        """Return those of ``senders`` whose log a worker has leased."""
        if not senders:
            return set()
        with translated(self._settings, "read leases"):
            found = self._client.mget([keys.lease(sender) for sender in senders])
        return {s for s, token in zip(senders, found, strict=True) if token is not None}

    def share(self, held: int | None) -> list[int]:
        """Write the number of senders of this worker; return the numbers of the other workers.

        ``held``: None if this worker ends.
        """
        with translated(self._settings, "share the senders"):
            number = "" if held is None else held
            return list(
                script("share")(
                    self._client,
                    [keys.shares(self._queue)],
                    self._number,
                    number,
                    SHARE_MS,
                    SHARES_MS,
                )
            )

    def claim(self, sender: int) -> Claim | None:
        """Take the lease of a pending sender; None if a worker has it. Raises `SenderUnusable`."""
        found = self.claim_all([sender])[0]
        if isinstance(found, SenderUnusable):
            raise found
        return found

    def claim_all(self, senders: Sequence[int]) -> list[Claim | SenderUnusable | None]:
        """Take the leases of pending senders, in one round trip.

        None stands for a lease that another worker has, or for a sender that is not pending; an
        error stands for a sender whose keys have bad values.
        """
        names = (keys.committed, keys.committed_count, keys.counters, keys.closing)
        pending = keys.pending(self._queue)
        lua = script("claim")
        calls = [
            evalsha(
                lua,
                "9",
                *(keys.lease(sender), pending, *(name(sender) for name in names), keys.SENDERS),
                *(keys.paths(sender), keys.PATHS),
                *(self._token, str(LEASE_MS), str(sender), str(GUARD_MS)),
            )
            for sender in senders
        ]
        with translated(self._settings, "claim logs"):
            replies = self._channel.run_each(lua, calls)
        return list(map(self._claim_of, senders, replies))

    def _claim_of(self, sender: int, reply: Any) -> Claim | SenderUnusable | None:
        try:
            with of_sender(self._settings, f"claim the log of sender {sender}", sender):
                if isinstance(reply, redis.ResponseError):
                    raise reply
                return None if reply is None else claim_of(sender, reply)
        except SenderUnusable as error:
            return error

    def renew(self, senders: Sequence[int], claims: Mapping[int, int] | None = None) -> Renewed:
        """Renew leases; return which are lost, and the counters of path records.

        A lease that has run out is taken again if no worker has claimed the log since the claim
        whose number is in ``claims``.
        """
        numbers = claims or {}
        names = [name(sender) for sender in senders for name in (keys.lease, keys.counters)]
        with translated(self._settings, "renew leases"):
            held, counters, now_ms = script("renew")(
                self._client,
                [keys.PATHS, *names],
                self._token,
                LEASE_MS,
                *(numbers.get(s, "") for s in senders),
            )
        lost = (sender for sender, one in zip(senders, held, strict=True) if not one)
        return Renewed(frozenset(lost), counters_of(pairs(counters)), now_ms)

    def handed_over(self, senders: Sequence[int]) -> set[int]:
        """Return those of ``senders`` whose last worker released them with closing guards."""
        if not senders:
            return set()
        with translated(self._settings, "look for hand-overs"):
            found = self._client.smismember(keys.HANDOVERS, [str(s) for s in senders])
        return {sender for sender, one in zip(senders, found, strict=True) if one}

    def commit(self, commits: Sequence[Commit]) -> set[int]:
        """Record deliveries, and renew the leases; return the senders whose lease is lost.

        One round trip, whatever the number of senders.
        """
        senders = [commit.sender for commit in commits]
        calls = [self._commit_call(commit) for commit in commits]
        held = self._run_each("commit_delivery", "record deliveries", senders, calls)
        return {sender for sender, one in zip(senders, held, strict=True) if not one}

    def _run_each(
        self, name: str, what: str, senders: Sequence[int], calls: Sequence[bytes]
    ) -> list[Any]:
        """Run a script for each sender, in one round trip; return the replies."""
        with translated(self._settings, what):
            replies = self._channel.run_each(script(name), calls)
        for sender, reply in zip(senders, replies, strict=True):
            if isinstance(reply, redis.ResponseError):
                with of_sender(self._settings, f"{what} of sender {sender}", sender):
                    raise reply
        return replies

    def _commit_call(self, commit: Commit) -> bytes:
        sender = commit.sender
        arguments = [self._token, str(LEASE_MS)]
        arguments.append("" if commit.needed_from is None else str(commit.needed_from))
        arguments += (str(len(commit.moves)), str(len(commit.rests)))
        for move in commit.moves:
            arguments += (move.field, str(move.sequence), "" if move.n is None else str(move.n))
        for rest in commit.rests:
            numbers = rest.sequence, rest.n, rest.skipped, rest.lost, len(rest.fields)
            arguments += (*map(str, numbers), *rest.fields)
        for name, increment in commit.counters.items():
            arguments += (name, str(increment))
        names = (
            keys.lease,
            keys.committed,
            keys.committed_count,
            keys.stats,
            keys.log,
            keys.closing,
            keys.counters,
        )
        used = [name(sender) for name in names]
        return evalsha(script("commit_delivery"), str(len(used)), *used, *arguments)

    def release(
        self,
        sender: int,
        reached: int,
        needed_from: int,
        guarded: Mapping[str, int],
        *,
        waiting: bool,
        undrained: bool,
    ) -> Released:
        """Release the lease; with ``undrained`` also if the log has packets to deliver.

        ``guarded`` has the destinations whose connections are still open, and for each the first
        sequence that this worker may give back: the log keeps it until the guard is deleted.
        """
        with of_sender(self._settings, f"release the log of sender {sender}", sender):
            return Released(
                script("release")(
                    self._client,
                    [
                        keys.lease(sender),
                        keys.pending(self._queue),
                        keys.waiting(self._queue),
                        keys.counters(sender),
                        keys.closing(sender),
                        keys.log(sender),
                        keys.HANDOVERS,
                    ],
                    self._token,
                    sender,
                    reached,
                    int(waiting),
                    int(undrained),
                    GUARD_MS,
                    needed_from,
                    *(part for pair in guarded.items() for part in pair),
                )
            )

    def guards(self, senders: Sequence[int]) -> list[ClosingGuards]:
        """Return which guards of each sender are up, and the sender's committed offsets.

        The holder of the lease continues from these offsets: guards that have ended are deleted,
        and the log keeps no packets for them.
        """
        names = (keys.lease, keys.closing, keys.committed, keys.committed_count)
        lua = script("read_guards")
        calls = [
            evalsha(lua, str(len(names)), *(n(s) for n in names), self._token, str(GUARD_MS))
            for s in senders
        ]
        found = []
        for sender, reply in zip(
            senders,
            self._run_each("read_guards", "read closing guards", senders, calls),
            strict=True,
        ):
            with of_sender(self._settings, f"read closing guards of sender {sender}", sender):
                found.append(guards_of(reply))
        return found

    def wrong_keys(self, sender: int) -> list[str]:
        """Return a description of each bad value in the keys of a sender's deliveries."""
        with translated(self._settings, f"look at the keys of sender {sender}"):
            return wrong_keys(self._client, sender)

    def renew_guard(self, sender: int, field: str, kept_from: int) -> bool:
        """Renew a guard of this worker; False if the guard is gone.

        The log keeps the packets from sequence ``kept_from`` on.
        """
        with of_sender(self._settings, f"renew a closing guard of sender {sender}", sender):
            reply = script("renew_guard")(
                self._client, [keys.closing(sender)], field, self._token, GUARD_MS, kept_from
            )
        return bool(reply)

    def end_guard(
        self, sender: int, field: str, move: Move | None, counters: Mapping[str, int | str]
    ) -> bool:
        """Delete a guard of this worker, and move the committed offset; False if it is gone."""
        with of_sender(self._settings, f"end a closing guard of sender {sender}", sender):
            reply = script("end_guard")(
                self._client,
                [
                    keys.closing(sender),
                    keys.committed(sender),
                    keys.committed_count(sender),
                    keys.stats(sender),
                    keys.pending(self._queue),
                    keys.counters(sender),
                    keys.lease(sender),
                    keys.log(sender),
                    keys.HANDOVERS,
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
        """Delete the offsets and counters of a sender's deliveries to nodes that are gone."""
        if not fields:
            return
        with of_sender(self._settings, f"forget committed offsets of sender {sender}", sender):
            pipe = self._client.pipeline(transaction=True)
            forget(pipe, sender, fields)
            pipe.execute()

    def call_worker(self, *, lost: bool = False) -> bool:
        """Add to the ring; True if the caller must enqueue a delivery job.

        ``lost``: whether the delivery job of the enqueued flag is known to be lost.
        """
        with translated(self._settings, "add an entry to the ring of a queue"):
            names = [keys.enqueued(self._queue), keys.ring(self._queue)]
            return bool(script("call_worker")(self._client, names, int(lost)))

    def hold_off(self) -> None:
        """Set the enqueued flag for a while: senders that wait for another host enqueue no jobs."""
        with translated(self._settings, "set the enqueued flag of a queue"):
            seconds, micros = self._client.time()
            now_ms = seconds * 1000 + micros // 1000
            self._client.set(keys.enqueued(self._queue), now_ms, nx=True, px=HOLD_OFF_MS)

    def begin(self) -> tuple[str, list[int]]:
        """Begin a delivery job: delete the enqueued flag.

        Returns the ring's last id and the senders that were pending after it: a worker that reads
        the ring from this id on misses no sender. Raises `NewerFormat`.
        """
        require_format(self._settings, self._client)
        self._replid.begin()
        with translated(self._settings, "begin a delivery job"):
            pipe = self._client.pipeline(transaction=True)
            pipe.delete(keys.enqueued(self._queue))
            pipe.xrevrange(keys.ring(self._queue), count=1)
            pipe.smembers(keys.pending(self._queue))
            _, rings, senders = pipe.execute()
        return (rings[0][0].decode() if rings else "0"), self._senders(senders)
