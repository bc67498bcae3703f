"""Redis's clock, computed from the last reply with Redis's time."""

from __future__ import annotations


class Clock:
    """Redis's clock: the last time from Redis, counted on by the monotonic clock."""

    __slots__ = ("_ahead_ms",)

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def tell(self, seconds: int, micros: int, now: float) -> None:
        """Take Redis's time at ``now`` (monotonic seconds)."""
        self.tell_ms(seconds * 1000 + micros / 1000, now)

    def tell_ms(self, redis_ms: float, now: float) -> None:
        """Take Redis's time in ms at ``now`` (monotonic seconds)."""
        self._ahead_ms = redis_ms - now * 1000

    def ms(self, now: float) -> int | None:
        """Return Redis's ms at ``now``, a whole number; None before the first time."""
        return None if self._ahead_ms is None else int(now * 1000 + self._ahead_ms)
