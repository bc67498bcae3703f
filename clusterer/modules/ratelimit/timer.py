"""A thread that does one thing again and again, at a steady pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from clusterer.runtime.rounds import Rounds

_JOIN_S = 5.0
"""Longest wait for the last call to end; calls to an unreachable Redis end within 2 s."""


class Timer:
    """Calls ``action`` every ``interval`` seconds until `stop`, whatever it raises.

    The first call comes at once. Calls that come due while one still runs are left out. The
    thread is a daemon: it holds up no process that ends without `stop`.
    """

    def __init__(self, name: str, action: Callable[[], object], interval: float) -> None:
        self._action = action
        self._interval = interval
        self._stopped = threading.Event()
        self._rounds = Rounds(name)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the calls and wait for one that runs; no call comes afterwards."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            with self._rounds.guard():
                self._action()
            due = max(due + self._interval, time.monotonic())
