"""Health checks in the background: one run at a time, shared by all viewers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from time import monotonic

from clusterer.runtime.rounds import Rounds
from clusterer.services import doctor
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, Level, error
from clusterer.settings import Settings

PAUSE_S = 5.0
"""Shortest time between the beginnings of two runs."""
_JOIN_S = 1.0
_BROKEN = "doctor"


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of the last run; of the present run until the first one has ended."""

    findings: tuple[Finding, ...] = ()
    number: int = 0
    """Number of the run with these findings, from 1."""
    began_at: float | None = None
    """UNIX seconds of the beginning of that run; None before the first run."""
    took_s: float | None = None
    """Length of that run; None while it runs."""
    running_s: float | None = None
    """Seconds since a run began that has not ended; None if none runs."""

    @property
    def is_healthy(self) -> bool:
        """Whether no finding is an error."""
        return not any(each.level is Level.ERROR for each in self.findings)


class DoctorRuns:
    """The runs of one process. Safe to use from any thread."""

    def __init__(
        self,
        settings: Settings,
        run: Callable[[Context], Iterator[Finding]] = doctor.run,
    ) -> None:
        self._settings = settings
        self._run = run
        self._lock = threading.Lock()
        self._ended: Report | None = None
        self._findings: list[Finding] = []
        self._number = 0
        self._began_at = 0.0
        self._began = -PAUSE_S
        self._thread: threading.Thread | None = None

    def begin(self, after: int | None = None) -> bool:
        """Begin a run; False if one runs, or if the last one began less than `PAUSE_S` ago.

        ``after``: begin only if the last run has this number, so that a request may be repeated.
        """
        with self._lock:
            if self._is_running or monotonic() - self._began < PAUSE_S:
                return False
            if after not in (None, self._number):
                return False
            self._number += 1
            self._findings, self._began_at, self._began = [], time.time(), monotonic()
            self._thread = threading.Thread(target=self._work, name="doctor", daemon=True)
            self._thread.start()
            return True

    def report(self) -> Report:
        """Return the findings; begins the first run."""
        if self._thread is None:
            self.begin()
        with self._lock:
            running_s = monotonic() - self._began if self._is_running else None
            if self._ended is None:
                findings = tuple(self._findings)
                return Report(findings, self._number, self._began_at, None, running_s)
            return replace(self._ended, running_s=running_s)

    def close(self) -> None:
        """Wait a moment for a run that has not ended."""
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
        with Rounds("doctor").guard():
            try:
                with closing(Context(self._settings)) as context:
                    for finding in self._run(context):
                        self._add(finding)
            except Exception as problem:
                text = f"the run ended early: {type(problem).__name__}"
                self._add(error(_BROKEN, text, "see the log of the console, and report the error"))
                raise
            finally:
                self._end()

    def _add(self, finding: Finding) -> None:
        with self._lock:
            self._findings.append(finding)

    def _end(self) -> None:
        with self._lock:
            took_s = monotonic() - self._began
            self._ended = Report(tuple(self._findings), self._number, self._began_at, took_s)
