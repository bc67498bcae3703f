"""The file in which a process shows its progress, and the health check that reads the file.

A process that runs until stopped holds a locked file in the data directory and touches the file
with each turn of its loop. The lock tells whether the process lives: the kernel releases the lock
at the end of the process, also in another container that shares the directory. The time of the
file tells whether the loop turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clusterer.settings import Settings

log = logging.getLogger(__name__)

NOTE_EVERY_S = 1.0
"""Least time between two touches of the file."""

_SUFFIX = ".alive"
_MOST = 100
"""Processes of one kind and pid, in containers that share a directory."""


def _directory(settings: Settings) -> Path:
    return settings.data_path / "run"


class Progress:
    """The file of this process, until `close`. Does nothing if the directory cannot be written.

    ``kind`` begins with node, worker or scheduler; more words may follow after a dash.
    """

    def __init__(self, settings: Settings, kind: str) -> None:
        self._noted_at = time.monotonic()
        self._path: Path | None = None
        self._descriptor = -1
        try:
            self._open(_directory(settings), f"{kind}.{os.getpid()}")
        except OSError as error:
            log.warning(
                "%s: health check unavailable: cannot write %s: %s; set data_dir to a directory "
                "that can be written",
                kind,
                _directory(settings),
                error.strerror,
            )

    def note(self) -> None:
        """Note that the process makes progress; costs nothing most of the time. Never raises."""
        now = time.monotonic()
        if self._path is None or now - self._noted_at < NOTE_EVERY_S:
            return
        self._noted_at = now
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)

    def close(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._path = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, directory: Path, name: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(_MOST):
            path = directory / f"{name}.{number}{_SUFFIX}"
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            # A health check deletes the file if it looks before the process has the lock.
            if locked(descriptor, fcntl.LOCK_EX) and _is_at(path, descriptor):
                os.utime(descriptor)
                self._path, self._descriptor = path, descriptor
                return
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Alive:
    """A process that lives, as a health check sees the process."""

    kind: str
    pid: int
    """The pid in the namespace of the process."""
    age_s: float
    """Time since the last progress of the process, by this host's clock."""


def living(settings: Settings, kind: str = "") -> list[Alive]:
    """Return the processes of this data directory that live, by name.

    ``kind`` leaves only those whose kind begins with that word. The function removes the files
    that ended processes have left.
    """
    found = sorted(_directory(settings).glob(f"*{_SUFFIX}"))
    alive = (each for path in found for each in _read(path))
    return [each for each in alive if kind in ("", each.kind.partition("-")[0])]


def _read(path: Path) -> Iterator[Alive]:
    kind, pid, *_ = (*path.name.split("."), "")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # the process ended meanwhile
        return
    try:
        if locked(descriptor, fcntl.LOCK_SH):
            path.unlink(missing_ok=True)
        elif pid.isdigit():
            yield Alive(kind, int(pid), max(0.0, time.time() - os.fstat(descriptor).st_mtime))
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def locked(descriptor: int, how: int) -> bool:
    """Lock an open file as `fcntl.flock` does; False at once if another process has a lock."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
