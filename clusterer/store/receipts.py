"""The times at which instances last saw nodes, per module: the clocks of module timeouts."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import (
    Command,
    WrongType,
    bad,
    blame,
    ids,
    is_bad_data,
    number,
    read_all,
)
from clusterer.store.client import connect, translated
from clusterer.store.format import require_format
from clusterer.store.scripts import Call, run_each, script
from clusterer.store.watches import (
    LISTENING_MS,
    MAX_GAP_MS,
    Flushed,
    FlushState,
    Notice,
    Reception,
    Verdict,
    Watch,
)

GONE_MS = 60_000
"""An instance without a heartbeat for so long is gone: the module timeout job ignores its
registrations, and an earlier run of it that still lives may register again."""

NOTICES_CAP = 20_000
"""Notices kept per instance (approximately, Redis trims whole blocks)."""

_NOTICES_AT_ONCE = 1_000
_JUDGED_AT_ONCE = 1_000

_SETS_AT_ONCE = 10
"""Sorted sets per command: Redis serves no other client meanwhile."""

_MOST_DIGITS = 15
"""Most digits of a number of ms; a longer number is a bad value."""

_NUMBER = re.compile(rf"\d{{1,{_MOST_DIGITS}}}", re.ASCII)


class Receipts:
    """Clocks, mutes and notices in one Redis. Safe to share between threads.

    Every method raises `StateUnavailable` when Redis does not answer in time.
    """

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._client = client or connect(settings)

    # -- the instance's side --------------------------------------------------------------------

    def begin(self, receiver: int, run: str) -> str:
        """Start the run with the token ``run``, and delete the registrations of earlier runs.

        Returns the id of the instance's last notice, from which the instance reads on.
        """
        require_format(self._settings, self._client)
        with translated(self._settings, f"register the modules of instance {receiver}"):
            blame(self._client, [keys.modules(receiver)])  # the script replaces it
            old = [watch for watch in self._watches([receiver]) if watch.cluster_id]
            last = script("begin")(
                self._client,
                [
                    keys.modules(receiver),
                    keys.INSTANCES,
                    keys.notices(receiver),
                    keys.REGISTRATIONS,
                    *(watch.last_seen for watch in old),
                    *(watch.muted for watch in old),
                ],
                receiver,
                run,
            )
        return _text(last)

    def register(
        self, watch: Watch, run: str, last_seen: Collection[int], members: Collection[int] = ()
    ) -> bool:
        """Register ``watch``: no node is muted for it.

        The clocks start now: of the nodes in ``last_seen``, and of those ``members`` of the cluster
        that an earlier run saw. A node without a clock does not time out.

        Returns False if ``run`` is not (or no longer) the instance's run: `begin` first.
        """
        with translated(self._settings, f"register module {watch.module!r}"):
            done = script("register")(
                self._client,
                [keys.modules(watch.receiver), watch.last_seen, watch.muted, keys.REGISTRATIONS],
                run,
                watch.field,
                watch.timeout_ms,
                json.dumps(sorted(last_seen)),
                json.dumps(sorted(members)),
            )
        return bool(done)

    def enroll(self, watch: Watch, last_seen: Collection[int], left: Collection[int]) -> None:
        """Start the clocks of nodes that were seen for the first time, delete those of ``left``.

        A node that has a clock keeps it, and one that is muted gets none.
        """
        with translated(self._settings, f"follow cluster {watch.cluster_id}"):
            script("enroll")(
                self._client,
                [watch.last_seen, watch.muted],
                json.dumps(sorted(last_seen)),
                json.dumps(sorted(left)),
            )

    def flush(
        self,
        receiver: int,
        run: str,
        last_seen_ms: Mapping[Watch, Mapping[int, int]],
        *,
        age_ms: int,
        last_notice: str,
    ) -> Flushed:
        """Write the times at which nodes were last seen, and the heartbeat of the instance.

        ``last_seen_ms`` has an entry, maybe an empty one, for each registration with a cluster;
        ``age_ms``: time since the instance last processed received packets; ``last_notice``: id of
        the last notice read.
        """
        with translated(self._settings, "record the nodes last seen"):
            state, now_ms, notices, tailed_ms, *unusable = script("flush")(
                self._client,
                [
                    keys.modules(receiver),
                    keys.notices(receiver),
                    keys.INSTANCES,
                    *(w.last_seen for w in last_seen_ms),
                ],
                receiver,
                run,
                age_ms,
                MAX_GAP_MS,
                last_notice,
                _NOTICES_AT_ONCE,
                GONE_MS,
                *(_pairs(last_seen) for last_seen in last_seen_ms.values()),
            )
        found = (_notice(keys.notices(receiver), *item) for item in notices)
        return Flushed(
            FlushState(state),
            int(now_ms),
            tuple(notice for notice in found if notice is not None),
            int(tailed_ms),
            _text(notices[-1][0]) if notices else last_notice,
            tuple(map(_text, unusable)),
        )

    def name_wrong(self, names: Sequence[str]) -> None:
        """Report those of the keys that hold a wrong type."""
        with translated(self._settings, "look at the types of keys"):
            blame(self._client, names)

    # -- the timeout job's side -----------------------------------------------------------------

    def watches(self) -> list[Watch]:
        """Return the registrations with a timeout of all instances."""
        with translated(self._settings, "list the registered modules"):
            return [watch for watch in self._watches(self._receivers()) if watch.timeout_ms]

    def counter(self) -> tuple[bytes | None, int]:
        """Return the counter of registrations (None: there is none), and Redis ms."""
        with translated(self._settings, "read the counter of registrations"):
            found, (seconds, micros) = read_all(
                self._client, [("get", keys.REGISTRATIONS), ("time",)]
            )
        return found, seconds * 1000 + micros // 1000

    def judge(self, watches: Sequence[Watch]) -> list[Verdict]:
        """Mute nodes that were silent for too long, end mutes that are over: one round trip.

        Returns a verdict for each watch; it is false for one without a due node. One call judges at
        most 1,000 nodes per watch: call again until no watch has a verdict.
        """
        if not watches:
            return []
        with translated(self._settings, "judge module timeouts"):
            replies = run_each(self._client, [_verdict_call(watch) for watch in watches])
        return [
            _verdict(watch, reply) for watch, reply in zip(watches, replies, strict=True) if reply
        ]

    # -- for the operator -----------------------------------------------------------------------

    def receptions(self) -> list[Reception]:
        """Return the nodes last seen by the instances that listen, by registration.

        A node that is muted for a registration has no clock there.
        """
        with translated(self._settings, "read the nodes last seen"):
            watches = [watch for watch in self._watches(self._receivers()) if watch.cluster_id]
            commands: list[Command] = [("time",)]
            for watch in watches:
                commands += [
                    ("hgetall", keys.modules(watch.receiver)),
                    ("zrange", watch.last_seen, 0, -1, False, True),
                ]
            (seconds, micros), *replies = read_all(self._client, commands)
        now_ms = seconds * 1000 + micros // 1000
        found = (
            _reception(watch, modules, clocks, now_ms)
            for watch, modules, clocks in zip(watches, replies[::2], replies[1::2], strict=True)
        )
        return [reception for reception in found if reception is not None]

    def _receivers(self) -> list[int]:
        """Return the instances; by a scan if the key of their set holds another type."""
        (members,) = read_all(self._client, [("smembers", keys.INSTANCES)])
        if isinstance(members, WrongType):
            prefix = keys.modules(0)[:-1]
            names = self._client.scan_iter(match=f"{prefix}*", count=1000)
            members = {name.removeprefix(prefix.encode()) for name in names}
        return ids(keys.INSTANCES, members)

    def _watches(self, receivers: Sequence[int]) -> list[Watch]:
        hashes = read_all(self._client, [("hgetall", keys.modules(found)) for found in receivers])
        return [
            watch
            for receiver, fields in zip(receivers, hashes, strict=True)
            for watch in watches_in(receiver, fields)
        ]


def _reception(
    watch: Watch,
    modules: Mapping[bytes, bytes],
    clocks: Iterable[tuple[bytes, float]],
    now_ms: int,
) -> Reception | None:
    """Return the nodes that an instance last saw; None if the instance does not listen."""
    begun, heartbeat = (
        number(keys.modules(watch.receiver), f"field {name}", modules.get(name.encode()))
        for name in ("begun", "heartbeat")
    )
    if not begun or not heartbeat or now_ms - heartbeat >= LISTENING_MS:
        return None
    return Reception(watch, begun, scores(watch.last_seen, clocks), now_ms)


def scores(key: str, members: Iterable[tuple[bytes, float]]) -> dict[int, int]:
    """Return a sorted set of machine_ids and times, without times that are infinite."""
    found = {member: at for member, at in members if isfinite(at)}
    return {machine_id: int(found[b"%d" % machine_id]) for machine_id in ids(key, found)}


def latest(
    client: redis.Redis, watches: Iterable[Watch]
) -> list[tuple[Watch, dict[int, int], dict[int, int]]]:
    """Return for each module and cluster when any of ``watches`` last saw each node, in Redis ms.

    One registration stands for all of its module and cluster; after it come the latest times of
    the nodes, and those until which nodes are muted. Redis compares the times.
    """
    groups: dict[tuple[int, str], list[Watch]] = {}
    for watch in watches:
        groups.setdefault((watch.cluster_id, watch.token), []).append(watch)
    return [
        (
            some[0],
            _highest(client, [watch.last_seen for watch in some]),
            _highest(client, [watch.muted for watch in some]),
        )
        for _, some in sorted(groups.items())
    ]


def _highest(client: redis.Redis, names: Sequence[str]) -> dict[int, int]:
    """Return the highest score of each machine_id in some sorted sets."""
    parts = [names[at : at + _SETS_AT_ONCE] for at in range(0, len(names), _SETS_AT_ONCE)]
    pipe = client.pipeline(transaction=False)
    for part in parts:
        pipe.zunion(part, aggregate="MAX", withscores=True)
    found: dict[bytes, float] = {}
    for part, reply in zip(parts, pipe.execute(raise_on_error=False), strict=True):
        members = reply
        if isinstance(reply, Exception):
            if not is_bad_data(reply):
                raise reply
            each = read_all(client, [("zrange", name, 0, -1, False, True) for name in part])
            members = [member for some in each for member in some]
        for member, at in members:
            found[member] = max(at, found.get(member, at))
    return scores(names[0], found.items())


def watches_in(receiver: int, fields: Mapping[bytes, bytes]) -> list[Watch]:
    """Return the registrations in an instance's hash; report bad values."""
    found = []
    for field, value in fields.items():
        if b":" in field:
            watch = _watch(receiver, field, value)
            found += [watch] if watch is not None else []
    return found


def _watch(receiver: int, field: bytes, value: bytes) -> Watch | None:
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        bad(keys.modules(receiver), f"field {_text(field)}", value, "a timeout in ms")
        return None
    try:
        return Watch.parse(receiver, _text(field), int(value))
    except ValueError:
        bad(keys.modules(receiver), "field", field, "module:cluster_id")
        return None


def _verdict(watch: Watch, reply: Sequence[Any]) -> Verdict:
    """Return the script's verdict, and report bad members, which the script skipped."""
    silent, over, bad_last_seen, bad_muted, next_ms = reply
    for key, members in ((watch.last_seen, bad_last_seen), (watch.muted, bad_muted)):
        ids(key, members)
    return Verdict(watch, tuple(map(int, silent)), tuple(map(int, over)), next_ms)


def _verdict_call(watch: Watch) -> Call:
    names = [
        keys.modules(watch.receiver),
        watch.last_seen,
        watch.muted,
        keys.notices(watch.receiver),
    ]
    arguments = [
        watch.field,
        watch.module,
        watch.cluster_id,
        _JUDGED_AT_ONCE,
        NOTICES_CAP,
        GONE_MS,
    ]
    return Call("verdict", names, arguments)


def _pairs(last_seen_ms: Mapping[int, int]) -> str:
    return json.dumps([number for item in last_seen_ms.items() for number in (item[1], item[0])])


def _notice(key: str, entry_id: bytes, flat: Sequence[bytes]) -> Notice | None:
    fields = dict(zip(map(_text, flat[::2]), map(_text, flat[1::2]), strict=True))
    numbers = [fields.get(name, "") for name in ("cluster", "machine_id", "muted_until")]
    token, colon, _ = fields.get("registration", "").rpartition(":")
    if not colon or not all(_NUMBER.fullmatch(number) for number in numbers):
        bad(key, f"entry {_text(entry_id)}", fields, "a module timeout")
        return None
    return Notice(_text(entry_id), token, *map(int, numbers))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
