"""The worker's end of the packet logs: leases, committed offsets, closing guards, wake-ups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from zlib import crc32

import redis

from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import ids
from clusterer.store.channel import Channel, evalsha
from clusterer.store.client import connect, translated
from clusterer.store.deliveries import (
    GUARD_MS,
    LEASE_MS,
    Claim,
    ClosingGuards,
    Commit,
    LogEntry,
    Move,
    Released,
    Renewed,
    by_cluster,
    claim_of,
    decoded_numbers,
    firsts,
    guards_of,
    pairs,
)
from clusterer.store.destinations import forget
from clusterer.store.format import require_format
from clusterer.store.nodes import version_of
from clusterer.store.paths import counters_of
from clusterer.store.same_replid import SameReplid
from clusterer.store.scripts import script
from clusterer.store.usable import SenderUnusable, of_sender, wrong_keys

HOLD_OFF_MS = 500
"""Time in which a worker that found only senders it may not claim is not called again for them;
append.lua knows the number too."""

SHARE_MS, SHARES_MS = 2000, 600_000
"""How long other workers believe a worker's number of senders, and how long it can be looked at."""


class DrainStore:
    """What a delivery worker does in Redis. Not for more than one thread at a time."""

    def __init__(
        self, settings: Settings, queue: str, token: str, client: redis.Redis | None = None
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._token = token
        self._number = crc32(token.encode())
        self._client = client or connect(settings)
        # Entries as Redis sends them: redis-py would make a dict of each.
        self._client.set_response_callback("XRANGE", lambda reply, **_: reply)
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
        """Tell the other workers how many senders this one has; return how many each of them has.

        None: this worker does not run any more.
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
        """Take the lease of a pending sender, None if it is not to be had."""
        found = self.claim_all([sender])[0]
        if isinstance(found, SenderUnusable):
            raise found
        return found

    def claim_all(self, senders: Sequence[int]) -> list[Claim | SenderUnusable | None]:
        """Take the leases of pending senders, in one round trip.

        None stands for a lease that is not to be had, an error for a sender that cannot be used.
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
            with of_sender(self._settings, f"claim the log of machine {sender}", sender):
                if isinstance(reply, redis.ResponseError):
                    raise reply
                return None if reply is None else claim_of(sender, reply)
        except SenderUnusable as error:
            return error

    def renew(self, senders: Sequence[int], claims: Mapping[int, int] | None = None) -> Renewed:
        """Renew leases; return which are lost, and what else Redis has told with them.

        One that has run out is taken again if no worker has claimed the log since the claim whose
        number is in ``claims``.
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
        """Return those of ``senders`` whose last worker gave them back, as far as is known."""
        if not senders:
            return set()
        with translated(self._settings, "look for hand-overs"):
            found = self._client.smismember(keys.HANDOVERS, [str(s) for s in senders])
        return {sender for sender, one in zip(senders, found, strict=True) if one}

    def commit(self, commits: Sequence[Commit]) -> set[int]:
        """Record what was delivered, and renew; return the senders whose lease is lost.

        One round trip, however many senders they are.
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
                with of_sender(self._settings, f"{what} of machine {sender}", sender):
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
        """Give the lease back; with ``undrained`` also if more is to be delivered.

        ``guarded`` has the destinations whose connections are still open, and for each the first
        sequence that this worker may give back: the log keeps it until the guard is down.
        """
        with of_sender(self._settings, f"release the log of machine {sender}", sender):
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

    def read(self, sender: int, after: int, count: int) -> list[LogEntry]:
        """Return up to ``count`` log entries that follow sequence ``after``."""
        with of_sender(self._settings, f"read the log of machine {sender}", sender):
            reply = self._client.xrange(keys.log(sender), str(after + 1), "+", count)
        return cast("list[LogEntry]", reply)

    def read_on(
        self, sender: int, after: int, count: int, clusters: Sequence[ClusterKey]
    ) -> tuple[list[LogEntry], dict[ClusterKey, int]]:
        """Return up to ``count`` entries after a sequence, and the versions as `read_all` does."""
        (entries,), versions = self.read_all([(sender, after)], count, clusters)
        return entries, versions

    def read_all(
        self, places: Sequence[tuple[int, int]], count: int, clusters: Sequence[ClusterKey]
    ) -> tuple[list[list[LogEntry]], dict[ClusterKey, int]]:
        """Return up to ``count`` entries that follow each (sender, sequence), in one round trip.

        Also the clusters' versions as they were after the read.
        """
        with translated(self._settings, "read logs"):
            pipe = self._client.pipeline(transaction=False)
            for sender, after in places:
                pipe.xrange(keys.log(sender), str(after + 1), "+", count)
            pipe.mget([keys.version(*key) for key in clusters])
            *found, versions = pipe.execute(raise_on_error=False)
        for (sender, _), entries in zip(places, found, strict=True):
            if isinstance(entries, redis.RedisError):
                with of_sender(self._settings, f"read the log of machine {sender}", sender):
                    raise entries
        if isinstance(versions, redis.RedisError):
            with translated(self._settings, "read the clusters' versions"):
                raise versions
        known = zip(clusters, versions, strict=True)
        return found, {key: version_of(key, version) or 0 for key, version in known}

    def seek(self, sender: int, generation: int, tail: int) -> int:
        """Return the sequence after which a node of this generation starts."""
        with of_sender(self._settings, f"search the log of machine {sender}", sender):
            return int(
                script("seek")(
                    self._client, [keys.log(sender), keys.counters(sender)], generation, tail
                )
            )

    def guards(self, senders: Sequence[int]) -> list[ClosingGuards]:
        """Return which guards of each sender are up, and how far all its deliveries have got.

        The deliveries of a leased log go on from what this returns: guards that are down are
        forgotten, and the log keeps nothing for them any more.
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
            with of_sender(self._settings, f"read closing guards of machine {sender}", sender):
                found.append(guards_of(reply))
        return found

    def wrong_keys(self, sender: int) -> list[str]:
        """Return what is wrong with the keys of a sender's deliveries, each in some words."""
        with translated(self._settings, f"look at the keys of machine {sender}"):
            return wrong_keys(self._client, sender)

    def pass_over(self, sender: int, sequence: int) -> None:
        """Have packets to come begin behind ``sequence``, that of an entry that cannot be read."""
        with of_sender(self._settings, f"pass over a log entry of machine {sender}", sender):
            script("pass_over")(self._client, [keys.counters(sender)], sequence)

    def delete_entries(self, sender: int, ids: Sequence[bytes]) -> None:
        """Delete entries of a log by their ids."""
        with of_sender(self._settings, f"delete log entries of machine {sender}", sender):
            self._client.xdel(keys.log(sender), *ids)

    def renew_guard(self, sender: int, field: str, kept_from: int) -> bool:
        """Keep one of our guards up; False if it is gone.

        The log keeps what follows from sequence ``kept_from``.
        """
        with of_sender(self._settings, f"renew a closing guard of machine {sender}", sender):
            reply = script("renew_guard")(
                self._client, [keys.closing(sender)], field, self._token, GUARD_MS, kept_from
            )
        return bool(reply)

    def end_guard(
        self, sender: int, field: str, move: Move | None, counters: Mapping[str, int | str]
    ) -> bool:
        """End one of our guards, moving the committed offset; False if it was not ours any more."""
        with of_sender(self._settings, f"end a closing guard of machine {sender}", sender):
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
        """Delete what is kept of a sender's deliveries to nodes that are gone."""
        if not fields:
            return
        with of_sender(self._settings, f"forget committed offsets of machine {sender}", sender):
            pipe = self._client.pipeline(transaction=True)
            forget(pipe, sender, fields)
            pipe.execute()

    def totals(self, sender: int) -> tuple[int, dict[ClusterKey, int]]:
        """Return the sequence of a sender's last packet, and its packets ever by cluster."""
        with of_sender(self._settings, f"read the counters of machine {sender}", sender):
            found = decoded_numbers(self._client.hgetall(keys.counters(sender)))
            return found.get("sequence", 0), by_cluster(found)

    def since_ms(self, sender: int) -> dict[ClusterKey, int]:
        """Return when a sender's first packet to each cluster was appended, Redis ms."""
        with of_sender(self._settings, f"read the counters of machine {sender}", sender):
            return firsts(decoded_numbers(self._client.hgetall(keys.counters(sender))))

    def call_worker(self, *, lost: bool = False) -> bool:
        """Ring for a worker; True if the caller must enqueue a delivery job.

        ``lost`` says that the wake-up which seems to be on its way is known to be lost.
        """
        with translated(self._settings, "call a delivery worker"):
            names = [keys.enqueued(self._queue), keys.ring(self._queue)]
            return bool(script("call_worker")(self._client, names, int(lost)))

    def hold_off(self) -> None:
        """Keep senders whose log this worker may not claim from enqueuing a job per packet."""
        with translated(self._settings, "hold off wake-ups"):
            seconds, micros = self._client.time()
            now_ms = seconds * 1000 + micros // 1000
            self._client.set(keys.enqueued(self._queue), now_ms, nx=True, px=HOLD_OFF_MS)

    def begin(self) -> tuple[str, list[int]]:
        """Say that the queued wake-up has arrived.

        Returns the ring's last id and the senders that were pending after it: who reads the
        ring from there misses no sender. Raises `NewerFormat`.
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
