"""Restarts children that end by themselves, after a pause that doubles while they fail."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clusterer.errors import ClustererError
from clusterer.processes.child import ChildSpec, Line
from clusterer.processes.group import ProcessGroup
from clusterer.runtime.rounds import Rounds
from clusterer.runtime.stop import StopFlag

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 10.0
"""After a run of this length a child starts again after the first, short pause."""
_LOOK_EVERY_S = 0.2


def pause_after(ran_s: float, previous_s: float) -> float:
    """Return the seconds to wait before a child that ran for ``ran_s`` seconds starts again.

    ``previous_s`` is the pause before it was last started, 0 for the first start.
    """
    if ran_s >= HEALTHY_AFTER_S or previous_s == 0:
        return FIRST_PAUSE_S
    return min(previous_s * 2, LONGEST_PAUSE_S)


@dataclass(slots=True)
class _Watched:
    spec: ChildSpec
    started: float = 0.0
    pause_s: float = 0.0
    restart_at: float | None = None


class Supervisor:
    """Keeps children running until the stop flag is set. Call `run` in the main thread."""

    def __init__(self, group: ProcessGroup, stop: StopFlag, say: Callable[[Line], None]) -> None:
        self._group = group
        self._stop = stop
        self._say = say
        self._watched: list[_Watched] = []

    def watch(self, spec: ChildSpec) -> None:
        """Keep a child running that the group has started already."""
        log.info("%s started, pid %d", spec.name, self._group.children[spec.name].pid)
        self._watched.append(_Watched(spec, started=time.monotonic()))

    def run(self, specs: Iterable[ChildSpec]) -> None:
        """Start ``specs`` and keep them running until the stop flag is set; then end all.

        Raises `ClustererError` if a child cannot be started the first time.
        """
        self._group.watch(self._stop.fileno())
        for spec in specs:
            self._group.start(spec)
            self.watch(spec)
        rounds = Rounds("supervisor")
        while not self._stop.is_set():
            with rounds.guard():
                self._tell(self._group.read(_LOOK_EVERY_S))
                self._look(time.monotonic())
                continue
            self._stop.wait(_LOOK_EVERY_S)
        log.info("stopping")
        self._tell(self._group.end())
        log.info("all processes have ended")

    def _tell(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._say(line)

    def _look(self, now: float) -> None:
        for watched in self._watched:
            if watched.restart_at is None:
                self._notice_end(watched, now)
            elif now >= watched.restart_at:
                self._restart(watched, now)

    def _notice_end(self, watched: _Watched, now: float) -> None:
        code = self._group.children[watched.spec.name].exit_code
        if code is None:
            return
        watched.pause_s = pause_after(now - watched.started, watched.pause_s)
        watched.restart_at = now + watched.pause_s
        log.warning(
            "%s ended (%s); starting again in %g s",
            watched.spec.name,
            describe_exit(code),
            watched.pause_s,
        )

    def _restart(self, watched: _Watched, now: float) -> None:
        watched.restart_at, watched.started = None, now
        try:
            child = self._group.start(watched.spec)
        except ClustererError as error:
            watched.pause_s = pause_after(0.0, watched.pause_s)
            watched.restart_at = now + watched.pause_s
            log.error("%s; next try in %g s", error, watched.pause_s)
        else:
            log.info("%s started again, pid %d", watched.spec.name, child.pid)


def describe_exit(code: int) -> str:
    """Return how a process ended, for people: an exit code, or the name of a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
