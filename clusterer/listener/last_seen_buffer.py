"""Last-seen times that Redis has, and that wait: a busy node costs no write per flush."""

from __future__ import annotations

from collections.abc import Mapping

from clusterer.store.watches import Watch

MAX_HOLD_S = 2.0
"""Longest time by which a node's last-seen time in Redis may be behind."""

_FLUSH_S = 0.25

LastSeen = dict[Watch, dict[int, float]]
"""For every registration: machine_id → monotonic time of its last packet."""


def hold_s(watch: Watch) -> float:
    """Return how old a last-seen time in Redis may become before it is written again.

    Less than half of the timeout: each heartbeat also writes every last-seen time that is older,
    so the timeout check never uses a time that was held back.
    """
    if not watch.timeout_ms:
        return MAX_HOLD_S
    return min(MAX_HOLD_S, max(0.0, watch.timeout_ms / 2000 - _FLUSH_S))


class LastSeenBuffer:
    """Decides which last-seen times are written now and which wait. Used in one thread."""

    def __init__(self) -> None:
        self._written: LastSeen = {}
        self._held: LastSeen = {}

    def take(self, times: Mapping[Watch, Mapping[int, float]], now: float) -> LastSeen:
        """Add newer times; return for each registration the times to write now, maybe none.

        ``now`` is the monotonic time up to which all packets were looked at.
        """
        due: LastSeen = {}
        for watch, newer in times.items():
            pending = {**self._held.pop(watch, {}), **newer}
            if self._is_due(watch, pending, now):
                due[watch] = pending
            else:
                due[watch] = {}
                self._held[watch] = pending
        return due

    def written(self, due: LastSeen) -> None:
        """Note that Redis has the times that `take` returned."""
        for watch, times in due.items():
            if times:
                self._written.setdefault(watch, {}).update(times)

    def forget(self) -> LastSeen:
        """Forget the times that Redis had, and return the times that wait."""
        held, self._held = self._held, {}
        self._written.clear()
        return held

    def leave(self, watch: Watch, machine_ids: frozenset[int]) -> None:
        """Forget nodes that left the cluster."""
        for times in (self._written.get(watch, {}), self._held.get(watch, {})):
            for machine_id in machine_ids:
                times.pop(machine_id, None)

    def _is_due(self, watch: Watch, pending: Mapping[int, float], now: float) -> bool:
        # When one time is due, all are written: their next writes stay together.
        oldest = now - hold_s(watch)
        known = self._written.get(watch, {})
        return any(known.get(machine_id, oldest) <= oldest for machine_id in pending)
