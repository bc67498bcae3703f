"""What Redis knows of who was heard, so that a talking node does not cost a write per flush."""

from __future__ import annotations

from collections.abc import Mapping

from clusterer.store.watches import Watch

MAX_HOLD_S = 2.0
"""Longest time for which a node's clock in Redis may be older than what was heard of it."""

_FLUSH_S = 0.25

Heard = dict[Watch, dict[int, float]]
"""For every registration: machine_id → monotonic time of its last packet."""


def hold_s(watch: Watch) -> float:
    """Return how old a clock may become before it is written again.

    Less than half of the timeout: a flush that says until when the instance listened brings every
    clock that is older, so no node is ever judged by a clock that was held back.
    """
    if not watch.timeout_ms:
        return MAX_HOLD_S
    return min(MAX_HOLD_S, max(0.0, watch.timeout_ms / 2000 - _FLUSH_S))


class Ledger:
    """Divides what was heard into what Redis must be told and what can wait. One thread's."""

    def __init__(self) -> None:
        self._written: Heard = {}
        self._held: Heard = {}

    def take(self, heard: Mapping[Watch, Mapping[int, float]], now: float) -> Heard:
        """Add what was heard to what was held back; return what is due now, maybe nothing, for
        each registration. ``now`` is the monotonic time up to which all packets were looked at.
        """
        due: Heard = {}
        for watch, newer in heard.items():
            pending = {**self._held.pop(watch, {}), **newer}
            if self._is_due(watch, pending, now):
                due[watch] = pending
            else:
                due[watch] = {}
                self._held[watch] = pending
        return due

    def written(self, due: Heard) -> None:
        """Note that Redis has what `take` returned."""
        for watch, heard in due.items():
            if heard:
                self._written.setdefault(watch, {}).update(heard)

    def forget(self) -> Heard:
        """Forget what Redis knows, and return what was held back: it may have lost anything."""
        held, self._held = self._held, {}
        self._written.clear()
        return held

    def leave(self, watch: Watch, machine_ids: frozenset[int]) -> None:
        """Forget nodes that are gone."""
        for heard in (self._written.get(watch, {}), self._held.get(watch, {})):
            for machine_id in machine_ids:
                heard.pop(machine_id, None)

    def _is_due(self, watch: Watch, pending: Mapping[int, float], now: float) -> bool:
        # When one is due all go along: that keeps their next times together.
        oldest = now - hold_s(watch)
        known = self._written.get(watch, {})
        return any(known.get(machine_id, oldest) <= oldest for machine_id in pending)
