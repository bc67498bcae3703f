"""What a delivery worker does in Redis: leases, committed offsets, closing guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    forget,
    guards_of,
)
from clusterer.store.format import require_format
from clusterer.store.log_reads import LogReads, SenderUnusable, of_sender
from clusterer.store.paths import counters_of
from clusterer.store.scripts import script

SHARE_MS, SHARES_MS = 2000, 600_000
"""Life of a worker's number of senders for the other workers, and of the key with all numbers."""


class SessionStore(LogReads):
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
        self._replid = _SameReplid()
        self._channel = Channel(settings, self._replid.check)

    def pending(self) -> list[int]:
        """Return the pending senders of the queue, in order."""
        with translated(self._settings, "list pending senders"):
            name = keys.pending(self._queue)
            return ids(name, self._client.smembers(name))

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
        names = [keys.shares(self._queue)]
        arguments = self._number, "" if held is None else held, SHARE_MS, SHARES_MS
        return list(self._run("share the senders", "share", names, *arguments))

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
        claimed = (numbers.get(sender, "") for sender in senders)
        held, counters, now_ms = self._run(
            "renew leases", "renew", [keys.PATHS, *names], self._token, LEASE_MS, *claimed
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
            arguments += (
                move.destination,
                str(move.sequence),
                "" if move.n is None else str(move.n),
            )
        for rest in commit.rests:
            numbers = rest.sequence, rest.n, rest.skipped, rest.lost, len(rest.destinations)
            arguments += (*map(str, numbers), *rest.destinations)
        for name, increment in commit.counters.items():
            arguments += (name, str(increment))
        used = [keys.lease(sender), keys.committed(sender), keys.committed_count(sender)]
        used += [of(sender) for of in (keys.stats, keys.log, keys.closing, keys.counters)]
        return evalsha(script("commit_delivery"), str(len(used)), *used, *arguments)

    def release(
        self,
        sender: int,
        reached: int,
        needed_from: int,
        guarded: Mapping[str, int],
        *,
        waiting: bool,
        even_if_pending: bool,
    ) -> Released:
        """Release the lease; with ``even_if_pending`` also if the log has packets to deliver.

        ``guarded`` has the destinations whose connections are still open, and for each the first
        sequence that this worker may give back: the log keeps it until the guard is deleted.
        """
        own = (of(sender) for of in (keys.counters, keys.closing, keys.log))
        names = [keys.lease(sender), keys.pending(self._queue), keys.waiting(self._queue)]
        arguments = sender, reached, int(waiting), int(even_if_pending), GUARD_MS, needed_from
        guards = (part for pair in guarded.items() for part in pair)
        names += [*own, keys.HANDOVERS]
        what = "release the log"
        reply = self._run_for(sender, what, "release", names, self._token, *arguments, *guards)
        return Released(reply)

    def guards(self, senders: Sequence[int]) -> list[ClosingGuards]:
        """Return which guards of each sender are up, and the sender's committed offsets.

        The holder of the lease continues from these offsets: guards that have ended are deleted,
        and the log keeps no packets for them.
        """
        names = (keys.lease, keys.closing, keys.committed, keys.committed_count)
        lua, what = script("read_guards"), "read closing guards"
        calls = [
            evalsha(lua, str(len(names)), *(n(s) for n in names), self._token, str(GUARD_MS))
            for s in senders
        ]
        found = []
        replies = self._run_each("read_guards", what, senders, calls)
        for sender, reply in zip(senders, replies, strict=True):
            with of_sender(self._settings, f"{what} of sender {sender}", sender):
                found.append(guards_of(reply))
        return found

    def renew_guard(self, sender: int, destination: str, kept_from: int) -> bool:
        """Renew a guard of this worker; False if the guard is gone.

        The log keeps the packets from sequence ``kept_from`` on.
        """
        arguments = destination, self._token, GUARD_MS, kept_from
        names = [keys.closing(sender)]
        what = "renew a closing guard"
        return bool(self._run_for(sender, what, "renew_guard", names, *arguments))

    def end_guard(
        self, sender: int, destination: str, move: Move | None, counters: Mapping[str, int | str]
    ) -> bool:
        """Delete a guard of this worker, and move the committed offset; False if it is gone."""
        names = [keys.closing(sender), keys.committed(sender), keys.committed_count(sender)]
        names += [keys.stats(sender), keys.pending(self._queue), keys.counters(sender)]
        names += [keys.lease(sender), keys.log(sender), keys.HANDOVERS]
        sequence = "" if move is None else move.sequence
        n = "" if move is None or move.n is None else move.n
        counted = (part for pair in counters.items() for part in pair)
        arguments = destination, self._token, sequence, n, sender, *counted
        what = "end a closing guard"
        return bool(self._run_for(sender, what, "end_guard", names, *arguments))

    def forget(self, sender: int, destinations: Sequence[str]) -> None:
        """Delete the offsets and counters of a sender's deliveries to nodes that are gone."""
        if not destinations:
            return
        with of_sender(self._settings, f"forget committed offsets of sender {sender}", sender):
            pipe = self._client.pipeline(transaction=True)
            forget(pipe, sender, destinations)
            pipe.execute()

    def begin(self) -> str:
        """Begin a delivery job: delete the enqueued flag, and return the ring's last id.

        A worker that reads the ring from this id on, and then the pending senders, misses no
        sender. Raises `NewerFormat`.
        """
        require_format(self._settings, self._client)
        self._replid.begin()
        with translated(self._settings, "begin a delivery job"):
            pipe = self._client.pipeline(transaction=True)
            pipe.delete(keys.enqueued(self._queue))
            pipe.xrevrange(keys.ring(self._queue), count=1)
            _, last = pipe.execute()
        return last[0][0].decode() if last else "0"


class _SameReplid:
    """Refuses a new connection to a server whose replication id is not that of the run.

    The id changes with each promotion of a replica and each start of Redis. After a failover the
    offsets and counts of a run belong to packets that the new master may lack.
    """

    def __init__(self) -> None:
        self._id = 0

    def begin(self) -> None:
        """Begin a run: any server will do."""
        self._id = 0

    def check(self, channel: Channel) -> None:
        """Ask the server that ``channel`` has connected to. Raises `redis.ConnectionError`."""
        lua = script("read_replid")
        (found,) = channel.run(lua, [evalsha(lua, "0")])
        before, self._id = self._id, found or self._id
        if before not in {0, self._id}:
            raise redis.ConnectionError("Redis has failed over or restarted since the last answer")
