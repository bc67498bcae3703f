"""Probers in Redis: which hosts can say whether they reach a node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from types import MappingProxyType
from typing import Any

import redis

from clusterer.endpoint import TIMEOUT_S
from clusterer.ids import PROTO_BIN
from clusterer.membership.suspicions import PRESENT_MS
from clusterer.membership.views import ClusterKey, Views
from clusterer.runtime.routes import is_local
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import (
    ids,
    is_bad_data,
    pairs,
    replaced,
    text,
    times_of,
    wrong_types,
)
from clusterer.store.client import Store, ms_of, translated
from clusterer.store.paths import counters_of

LOOK_S = 5.0
"""Time for which the kernel's answers, which addresses are this host's, are kept."""

LEASE_MS = 3000
"""A prober renews its lease each second."""

LOOKS_MS = 10_000
"""Two looks that are further apart do not tell that a prober is gone: Redis may have been away.
Maintenance workers take turns, so the looks of one of several are seconds apart."""

AHEAD_MS = 1000
"""A heartbeat that is further in the future is from before the clock was set back."""

MOST_WAIT_S = 0.8 * TIMEOUT_S
"""Longest wait for a ring: the reply must arrive before the client gives up."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The values that a prober reads with its heartbeat."""

    now_ms: int
    """Redis ms of the heartbeat."""
    counters: Mapping[int, int]
    """The reply of `PathStore.counters`."""
    present: Mapping[ClusterKey, Mapping[int, int]]
    """By cluster, the probers with Redis ms of their last heartbeats; empty if not asked for."""


class ProberStore(Store):
    """Access to the probers of all clusters. One thread at a time may `sweep`."""

    _looked_ms = 0
    _last: Mapping[ClusterKey, Mapping[bytes, float]] = MappingProxyType({})
    """Old heartbeats at the last look."""

    def heartbeat(
        self, machine_id: int, token: str, clusters: Sequence[ClusterKey], *, look: bool = False
    ) -> Heartbeat | None:
        """Note that the prober ``machine_id`` is present in clusters; one round trip.

        ``look``: read also which probers are present. Returns None if another process of the host
        is the prober: ``token`` tells them apart.
        """
        names = [keys.prober(machine_id), keys.PATHS]
        names += [name for key in clusters for name in (keys.probers(*key), keys.nodes(*key))]
        what = f"record the heartbeat of prober {machine_id}"
        reply = self._run(what, "heartbeat", names, token, LEASE_MS, machine_id, int(look))
        if reply is None:
            return None
        now_ms, wrong, counters, *found = reply
        replaced(wrong)
        present = {
            key: times_of(keys.probers(*key), _scores(members))
            for key, members in zip(clusters, found, strict=True)
        }
        return Heartbeat(int(now_ms), counters_of(pairs(counters)), present if look else {})

    def leave(self, machine_id: int, token: str, clusters: Iterable[ClusterKey]) -> bool:
        """Note that the prober ends; return whether this process was the prober."""
        names = [keys.prober(machine_id), keys.prober_ring(machine_id)]
        names += [keys.probers(*key) for key in clusters]
        what = f"remove prober {machine_id}"
        return bool(self._run(what, "leave", names, token, machine_id))

    def present(self, key: ClusterKey) -> dict[int, int]:
        """Return the probers of a cluster, each with Redis ms of its last heartbeat."""
        what = f"read the probers of cluster {key}"
        (members,) = self._read(what, ("zrange", keys.probers(*key), 0, -1, False, True))
        return times_of(keys.probers(*key), members)

    def sweep(
        self, clusters: Iterable[ClusterKey], *, settled: bool = True
    ) -> dict[ClusterKey, list[int]]:
        """Remove probers whose heartbeat is old and the same as at the last look; return them.

        ``settled``: whether Redis has been there for some seconds; if not, the last look has to be
        `PRESENT_MS` old, so that each prober had the time to come back.
        Two looks that are more than `LOOKS_MS` apart remove none: while Redis is away, all
        heartbeats become old.
        """
        wanted = list(clusters)
        commands = [("zrange", keys.probers(*key), 0, -1, False, True) for key in wanted]
        time, *found = self._read("read the probers", ("time",), *commands)
        now_ms = ms_of(time)
        since_ms = abs(now_ms - self._looked_ms)
        if not settled and since_ms < PRESENT_MS:
            return {}
        looks = {
            key: {member: at for member, at in members if _is_old(at, now_ms)}
            for key, members in zip(wanted, found, strict=True)
        }
        last = self._last if since_ms <= LOOKS_MS else {}
        self._last, self._looked_ms = looks, now_ms
        return {
            key: removed
            for key, look in looks.items()
            if (removed := self._remove(key, look, last.get(key, {})))
        }

    def _remove(
        self, key: ClusterKey, look: Mapping[bytes, float], last: Mapping[bytes, float]
    ) -> list[int]:
        gone = [member for member, at in look.items() if last.get(member) == at]
        if not gone:
            return []
        names, arguments = [keys.probers(*key)], list[Any]()
        for member in gone:
            names += [f"{prefix}{text(member)}" for prefix in _OF_PROBER]
            arguments += [member, repr(look[member])]
        replies = self._run("sweep the probers", "sweep_probers", names, *arguments)
        done = [member for member, removed in zip(gone, replies, strict=True) if removed]
        return ids(keys.probers(*key), done)


class ProberRings(Store):
    """The rings of one prober: its own, and one of each cluster.

    For one thread; `ring` is safe in any thread.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        super().__init__(settings, client)
        self._last: dict[Any, Any] = {}
        """By stream, the id of the last entry that is known."""

    def listen(self, machine_id: int, clusters: Sequence[ClusterKey]) -> None:
        """Listen to the rings of a prober; a ring that is new here rings at once if it has rung."""
        names = [keys.prober_ring(machine_id), *(keys.probers_ring(*key) for key in clusters)]
        self._last = {name: self._last.get(name, "0") for name in names}

    def forget(self) -> None:
        """Treat all entries as new: Redis was away, and may have lost its data."""
        self._last = dict.fromkeys(self._last, "0")

    def wait(self, timeout_s: float) -> bool:
        """Wait until a ring rings, for up to ``timeout_s``; return whether one has rung."""
        block_ms = int(min(timeout_s, MOST_WAIT_S) * 1000)
        with translated(self._settings, "wait for suspicions"):
            try:
                found: Any = self._client.xread(
                    self._last, count=1, block=block_ms if block_ms > 0 else None
                )
            except redis.ResponseError as error:
                if not is_bad_data(error):
                    raise
                self._delete([wrong.key for wrong in wrong_types(self._client, list(self._last))])
                return True
        for name, entries in found:
            self._last[text(name)] = text(entries[-1][0])
        return bool(found)

    def _delete(self, wrong: Sequence[str]) -> None:
        """Delete rings of a wrong type: a ring is of use for some seconds only."""
        if wrong:
            self._client.delete(*wrong)
            replaced(wrong)
            self._last |= dict.fromkeys(wrong, "0")

    def ring(self, machine_id: int) -> None:
        """Wake one prober."""
        with translated(self._settings, "add an entry to the ring of a prober"):
            self._client.xadd(
                keys.prober_ring(machine_id), {"ring": 1}, maxlen=1, approximate=False
            )


class ProberHere:
    """Knows which prober is this host's. One that threads share asks the kernel a bit more often.

    To ask the kernel about 1,000 addresses takes a tenth of a second: its answers count for
    `LOOK_S` seconds.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, bool] = {}
        self._asked_at = -inf

    def find(self, views: Views) -> int | None:
        """Return the machine_id of this host's prober: its lowest own one; None without a row."""
        if monotonic() - self._asked_at >= LOOK_S:
            self._asked_at = monotonic()
            self._hosts = {}
        own = (
            machine_id
            for key, view in views.items()
            if key.protocol == PROTO_BIN
            for machine_id, node in view.nodes.items()
            if self._is_here(node.host)
        )
        return min(own, default=None)

    def _is_here(self, host: str) -> bool:
        found = self._hosts.get(host)
        if found is None:
            found = self._hosts[host] = is_local(host)
        return found


_OF_PROBER = keys.prober(0)[:-1], keys.prober_ring(0)[:-1]
"""Prefixes: a member of the set may be no machine_id."""


def _scores(flat: Sequence[bytes]) -> Iterator[tuple[bytes, float]]:
    """Yield the members of a sorted set, with their scores, that a script sent flat."""
    return ((member, float(score)) for member, score in pairs(flat).items())


def _is_old(at: float, now_ms: int) -> bool:
    return not now_ms - PRESENT_MS <= at <= now_ms + AHEAD_MS
