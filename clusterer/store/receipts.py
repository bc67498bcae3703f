"""When each node was last heard, per instance and module: the clocks that module timeouts go by."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.client import connect, translated
from clusterer.store.format import require_format
from clusterer.store.scripts import script
from clusterer.store.watches import Flushed, FlushState, Notice, Reception, Verdict, Watch

MAX_GAP_MS = 2_000
"""Longest time between two flushes after which silence still means silence."""

GONE_MS = 60_000
"""An instance that has not flushed for so long is gone: nobody is judged on its behalf, and an
earlier run of it that still lives may register again."""

NOTICES_CAP = 20_000
"""Notices kept per instance (approximately, Redis trims whole blocks)."""

_NOTICES_AT_ONCE = 1_000
_JUDGED_AT_ONCE = 1_000

_Call = tuple[list[str], list[Any]]
"""Keys and arguments of one script call."""


class Receipts:
    """Clocks, silences and notices in one Redis. Safe to share between threads.

    Every method raises `StateUnavailable` when Redis does not answer in time.
    """

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._client = client or connect(settings)

    # -- the instance's side --------------------------------------------------------------------

    def begin(self, receiver: int, run: str) -> str:
        """Start the run with the token ``run``: all that earlier runs left is forgotten.

        Returns the id of the instance's last notice, from which it reads on.
        """
        require_format(self._settings, self._client)
        with translated(self._settings, f"register machine {receiver}"):
            old = [watch for watch in self._watches([receiver]) if watch.cluster_id]
            last = script("begin")(
                self._client,
                [
                    keys.modules(receiver),
                    keys.INSTANCES,
                    keys.notices(receiver),
                    *(watch.heard for watch in old),
                    *(watch.silenced for watch in old),
                ],
                receiver,
                run,
            )
        return _text(last)

    def register(self, watch: Watch, run: str, machine_ids: Collection[int]) -> bool:
        """Register ``watch``: nobody is silenced for it, each node's clock starts now.

        Returns False if ``run`` is not (or no longer) the instance's: `begin` first.
        """
        with translated(self._settings, f"register module {watch.module!r}"):
            done = script("register")(
                self._client,
                [keys.modules(watch.receiver), watch.heard, watch.silenced],
                run,
                watch.field,
                watch.timeout_ms,
                json.dumps(sorted(machine_ids)),
            )
        return bool(done)

    def enroll(self, watch: Watch, joined: Collection[int], left: Collection[int]) -> None:
        """Start the clocks of nodes that are new in the cluster, forget those that are gone."""
        with translated(self._settings, f"follow cluster {watch.cluster_id}"):
            script("enroll")(
                self._client,
                [watch.heard, watch.silenced],
                json.dumps(sorted(joined)),
                json.dumps(sorted(left)),
            )

    def flush(
        self,
        receiver: int,
        run: str,
        heard_ms: Mapping[Watch, Mapping[int, int]],
        *,
        age_ms: int,
        cursor: str,
    ) -> Flushed:
        """Note how long ago each node was heard, and that the instance listened until now.

        ``heard_ms`` has an entry, maybe an empty one, for each registration with a cluster;
        ``age_ms`` is how long ago its packets were last looked at; ``cursor`` is the id of the
        last notice read.
        """
        with translated(self._settings, "note who was heard"):
            state, now_ms, notices, tailed_ms = script("flush")(
                self._client,
                [keys.modules(receiver), keys.notices(receiver), *(w.heard for w in heard_ms)],
                run,
                age_ms,
                MAX_GAP_MS,
                cursor,
                _NOTICES_AT_ONCE,
                GONE_MS,
                *(_pairs(heard) for heard in heard_ms.values()),
            )
        found = tuple(_notice(*item) for item in notices)
        return Flushed(FlushState(state), int(now_ms), found, int(tailed_ms))

    # -- the timeout job's side -----------------------------------------------------------------

    def watches(self) -> list[Watch]:
        """Return the registrations with a timeout of all instances."""
        with translated(self._settings, "list the registered modules"):
            receivers = sorted(map(int, self._client.smembers(keys.INSTANCES)))
            return [watch for watch in self._watches(receivers) if watch.timeout_ms]

    def judge(self, watches: Sequence[Watch]) -> list[Verdict]:
        """Silence whoever was silent for too long, end silences that are over: one round trip.

        Returns a verdict for each watch for which something was due. At most 1,000 nodes per
        watch and call: call again until nothing is due.
        """
        if not watches:
            return []
        with translated(self._settings, "judge module timeouts"):
            replies = self._run_all("verdict", [_verdict_call(watch) for watch in watches])
        return [
            Verdict(watch, tuple(map(int, silent)), tuple(map(int, over)))
            for watch, (silent, over) in zip(watches, replies, strict=True)
            if silent or over
        ]

    # -- for the operator -----------------------------------------------------------------------

    def receptions(self) -> list[Reception]:
        """Return what the instances that are listening have heard, by registration.

        A node that is silenced for a registration has no clock there.
        """
        with translated(self._settings, "read who was heard"):
            receivers = sorted(map(int, self._client.smembers(keys.INSTANCES)))
            watches = [watch for watch in self._watches(receivers) if watch.cluster_id]
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            for watch in watches:
                pipe.hmget(keys.modules(watch.receiver), "begun", "flushed_at")
                pipe.zrange(watch.heard, 0, -1, withscores=True)
            (seconds, micros), *replies = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        found = zip(watches, replies[::2], replies[1::2], strict=True)
        return [
            Reception(watch, int(begun), {int(m): int(at) for m, at in clocks}, now_ms)
            for watch, (begun, flushed), clocks in found
            if begun and flushed and now_ms - int(flushed) < 2 * MAX_GAP_MS
        ]

    def _watches(self, receivers: Sequence[int]) -> list[Watch]:
        if not receivers:
            return []
        pipe = self._client.pipeline(transaction=False)
        for receiver in receivers:
            pipe.hgetall(keys.modules(receiver))
        hashes = pipe.execute()
        return [
            Watch.parse(receiver, _text(field), int(value))
            for receiver, fields in zip(receivers, hashes, strict=True)
            for field, value in fields.items()
            if b":" in field
        ]

    def _run_all(self, name: str, calls: Sequence[_Call]) -> list[Any]:
        """Run one script many times in one round trip (two more if Redis has not loaded it)."""
        chosen = script(name)
        replies = self._pipelined(chosen.sha, calls)
        lost = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lost:
            self._client.script_load(chosen.text)
            again = self._pipelined(chosen.sha, [calls[at] for at in lost])
            for at, reply in zip(lost, again, strict=True):
                replies[at] = reply
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply
        return replies

    def _pipelined(self, sha: str, calls: Sequence[_Call]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for names, arguments in calls:
            pipe.evalsha(sha, len(names), *names, *arguments)
        return pipe.execute(raise_on_error=False)


def _verdict_call(watch: Watch) -> _Call:
    names = [
        keys.modules(watch.receiver),
        watch.heard,
        watch.silenced,
        keys.notices(watch.receiver),
    ]
    return names, [
        watch.field,
        watch.module,
        watch.cluster_id,
        _JUDGED_AT_ONCE,
        NOTICES_CAP,
        GONE_MS,
    ]


def _pairs(heard_ms: Mapping[int, int]) -> str:
    return json.dumps([number for item in heard_ms.items() for number in (item[1], item[0])])


def _notice(entry_id: bytes, flat: Sequence[bytes]) -> Notice:
    fields = dict(zip(map(_text, flat[::2]), map(_text, flat[1::2]), strict=True))
    return Notice(
        _text(entry_id),
        fields["registration"].rpartition(":")[0],
        int(fields["cluster"]),
        int(fields["machine_id"]),
        int(fields["silenced_until"]),
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
