"""The times at which instances last saw nodes, per module: the clocks of module timeouts."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from clusterer.store import keys
from clusterer.store.badvalues import bad, blame, ids, pairs, text
from clusterer.store.client import translated
from clusterer.store.format import require_format
from clusterer.store.receptions import Receptions
from clusterer.store.scripts import Call, run_each, script
from clusterer.store.watches import MAX_GAP_MS, Flushed, FlushState, Notice, Verdict, Watch

GONE_MS = 60_000
"""An instance without a heartbeat for so long is gone: the module timeout job ignores its
registrations, and an earlier run of it that still lives may register again."""

NOTICES_CAP = 20_000
"""Notices kept per instance (approximately, Redis trims whole blocks)."""

_NOTICES_AT_ONCE = 1_000
_JUDGED_AT_ONCE = 1_000

_NUMBER = re.compile(r"\d{1,15}", re.ASCII)


class Receipts(Receptions):
    """Clocks, mutes and notices in one Redis. Safe to share between threads.

    Every method raises `StateUnavailable` when Redis does not answer in time.
    """

    # -- the instance's side --------------------------------------------------------------------

    def begin(self, receiver: int, run: str) -> str:
        """Start the run with the token ``run``, and delete the registrations of earlier runs.

        Returns the id of the instance's last notice, from which the instance reads on.
        """
        require_format(self._settings, self._client)
        with translated(self._settings, f"register the modules of instance {receiver}"):
            blame(self._client, [keys.modules(receiver)])  # the script replaces it
            old = [watch for watch in self._watches([receiver]) if watch.cluster_id]
            names = [keys.modules(receiver), keys.INSTANCES, keys.notices(receiver)]
            names.append(keys.REGISTRATIONS)
            names += [name for watch in old for name in (watch.last_seen, watch.muted)]
            return text(script("begin")(self._client, names, receiver, run))

    def register(
        self, watch: Watch, run: str, last_seen: Collection[int], members: Collection[int] = ()
    ) -> bool:
        """Register ``watch``: no node is muted for it.

        The clocks start now: of the nodes in ``last_seen``, and of those ``members`` of the cluster
        that an earlier run saw. A node without a clock does not time out.

        Returns False if ``run`` is not (or no longer) the instance's run: `begin` first.
        """
        names = [keys.modules(watch.receiver), watch.last_seen, watch.muted, keys.REGISTRATIONS]
        lists = (json.dumps(sorted(each)) for each in (last_seen, members))
        arguments = run, watch.field, watch.timeout_ms, *lists
        return bool(self._run(f"register module {watch.module!r}", "register", names, *arguments))

    def enroll(self, watch: Watch, last_seen: Collection[int], left: Collection[int]) -> None:
        """Start the clocks of nodes that were seen for the first time, delete those of ``left``.

        A node that has a clock keeps it, and one that is muted gets none.
        """
        lists = (json.dumps(sorted(each)) for each in (last_seen, left))
        names = [watch.last_seen, watch.muted]
        self._run(f"follow cluster {watch.cluster_id}", "enroll", names, *lists)

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
        names = [keys.modules(receiver), keys.notices(receiver), keys.INSTANCES]
        names += [watch.last_seen for watch in last_seen_ms]
        arguments = receiver, run, age_ms, MAX_GAP_MS, last_notice, _NOTICES_AT_ONCE, GONE_MS
        clocks = map(_pairs, last_seen_ms.values())
        state, now_ms, notices, tailed_ms, *unusable = self._run(
            "record the nodes last seen", "flush", names, *arguments, *clocks
        )
        found = (_notice(keys.notices(receiver), *item) for item in notices)
        return Flushed(
            FlushState(state),
            int(now_ms),
            tuple(notice for notice in found if notice is not None),
            int(tailed_ms),
            text(notices[-1][0]) if notices else last_notice,
            tuple(map(text, unusable)),
        )

    def name_wrong(self, names: Sequence[str]) -> None:
        """Report those of the keys that hold a wrong type."""
        with translated(self._settings, "look at the types of keys"):
            blame(self._client, names)

    # -- the timeout job's side -----------------------------------------------------------------

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


def _verdict(watch: Watch, reply: Sequence[Any]) -> Verdict:
    """Return the script's verdict, and report bad members, which the script skipped."""
    silent, over, bad_last_seen, bad_muted, next_ms = reply
    for key, members in ((watch.last_seen, bad_last_seen), (watch.muted, bad_muted)):
        ids(key, members)
    return Verdict(watch, tuple(map(int, silent)), tuple(map(int, over)), next_ms)


def _verdict_call(watch: Watch) -> Call:
    receiver = watch.receiver
    names = [keys.modules(receiver), watch.last_seen, watch.muted, keys.notices(receiver)]
    registration = watch.field, watch.module, watch.cluster_id
    return Call("verdict", names, (*registration, _JUDGED_AT_ONCE, NOTICES_CAP, GONE_MS))


def _pairs(last_seen_ms: Mapping[int, int]) -> str:
    return json.dumps([number for item in last_seen_ms.items() for number in (item[1], item[0])])


def _notice(key: str, entry_id: bytes, flat: Sequence[bytes]) -> Notice | None:
    fields = {text(name): text(value) for name, value in pairs(flat).items()}
    numbers = [fields.get(name, "") for name in ("cluster", "machine_id", "muted_until")]
    token, colon, _ = fields.get("registration", "").rpartition(":")
    if not colon or not all(_NUMBER.fullmatch(number) for number in numbers):
        bad(key, f"entry {text(entry_id)}", fields, "a module timeout")
        return None
    return Notice(text(entry_id), token, *map(int, numbers))
