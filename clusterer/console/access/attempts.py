"""Limits failed logins, per address and per name."""

from __future__ import annotations

from collections import OrderedDict, deque

WITHIN_S = 60.0
MOST_PER_ADDRESS = 10
"""Failed logins from one address in `WITHIN_S`."""
MOST_PER_NAME = 20
"""Failed logins with one name, from all addresses, in `WITHIN_S`."""
MOST_KEYS = 10_000
"""Addresses and names that are remembered; the oldest are forgotten first."""


class Attempts:
    """The failed logins of the last minute. For one event loop."""

    def __init__(self) -> None:
        self._failed: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def wait_s(self, address: str, name: str, now: float) -> float:
        """Return the seconds until a login may be tried; 0: now."""
        return max(
            self._wait_s(("address", address), MOST_PER_ADDRESS, now),
            self._wait_s(("name", name), MOST_PER_NAME, now),
        )

    def failed(self, address: str, name: str, now: float) -> None:
        """Note a failed login."""
        for key in (("address", address), ("name", name)):
            times = self._failed.setdefault(key, deque(maxlen=MOST_PER_NAME))
            times.append(now)
            self._failed.move_to_end(key)
        while len(self._failed) > MOST_KEYS:
            self._failed.popitem(last=False)

    def succeeded(self, address: str, name: str) -> None:
        """Forget the attempt that was noted last: it was no failure."""
        for key in (("address", address), ("name", name)):
            if times := self._failed.get(key):
                times.pop()

    def _wait_s(self, key: tuple[str, str], most: int, now: float) -> float:
        times = self._failed.get(key, ())
        recent = [at for at in times if now - at < WITHIN_S]
        return recent[-most] + WITHIN_S - now if len(recent) >= most else 0.0
