"""Standard streams that end no process: stderr that fails, is full or has no reader."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import stat
import sys
from collections.abc import Callable
from time import monotonic

from clusterer.runtime import forks

SERVICE_PATIENCE_S = 0.2
"""Time that a service waits once for a reader of its log. Then the service continues without a log
until there is room again."""

_CHUNK = select.PIPE_BUF
"""Bytes of the largest write: a pipe that has room takes so many at once, without a wait."""

Notice = Callable[[str], str]


class LogStream(io.TextIOBase):
    """Text to a descriptor, line by line, that never raises: what cannot be written is counted.

    The next line that can be written comes after one that says how many were lost, and why.
    """

    def __init__(
        self, descriptor: int, *, encoding: str = "utf-8", patience_s: float | None = None
    ) -> None:
        """``patience_s``: time for which a reader that stopped reading may delay the process, once
        until it reads again; None: for ever, as a command for people does.
        """
        self.lost = 0
        """Lines lost since the stream last worked."""
        self.lost_total = 0
        """Lines lost ever."""
        self.patience_s = patience_s
        self.notice: Notice = lambda text: f"{text}\n"
        """Makes a line of the log of a text."""
        self.elsewhere: int | None = None
        """Descriptor on which to say, once, that the log cannot be written."""
        self._encoding = encoding
        self._shared = descriptor
        self._descriptor = _own_pipe(descriptor)
        self._may_wait = self._descriptor == descriptor
        self._lock = forks.rlock()
        self._why = ""
        self._torn = False
        self._stuck = False
        self._told = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return the number by which others know the stream."""
        return self._shared

    def isatty(self) -> bool:
        return os.isatty(self._shared)

    def write(self, text: str, /) -> int:
        """Write ``text``, or count its lines as lost."""
        if not isinstance(text, str):
            raise TypeError(f"text, not {type(text).__name__}")
        with self._lock:
            try:
                if self.lost:
                    self._confess()
                self._put(text)
            except OSError as error:
                self._lose(text, error.strerror or str(error))
        return len(text)

    def confess(self) -> None:
        """Say how many lines were lost, if that can be said now."""
        with self._lock, contextlib.suppress(OSError):
            if self.lost:
                self._confess()

    def _confess(self) -> None:
        what = "1 line of this log was" if self.lost == 1 else f"{self.lost} lines of this log were"
        self._put(self.notice(f"{what} lost: {self._why}"))
        self.lost, self._told = 0, False

    def _lose(self, text: str, why: str) -> None:
        lines = max(text.count("\n"), 1) if text else 0
        self.lost += lines
        self.lost_total += lines
        self._why = why
        if self._told or self.elsewhere is None:
            return
        self._told = True
        words = self.notice(
            f"the log cannot be written: {why}; the process continues without a log"
        )
        with contextlib.suppress(OSError):
            if _has_room(self.elsewhere, 0):
                os.write(self.elsewhere, words.encode(self._encoding, self.errors)[:_CHUNK])

    def _put(self, text: str) -> None:
        """Write all of ``text``; raises `OSError`."""
        end = "\n" if self._torn else ""  # of a line of which only the beginning could be written
        rest = memoryview(f"{end}{text}".encode(self._encoding, self.errors))
        deadline = float("inf") if self.patience_s is None else monotonic() + self.patience_s
        while rest:
            written = self._write_some(rest[:_CHUNK], deadline)
            rest = rest[written:]
            self._torn = bool(rest)
        self._stuck = False

    def _write_some(self, data: memoryview, deadline: float) -> int:
        if self._may_wait:
            self._await_room(deadline)
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                self._await_room(deadline)

    def _await_room(self, deadline: float) -> None:
        left_s = 0.0 if self._stuck else max(deadline - monotonic(), 0.0)
        if not _has_room(self._descriptor, left_s) or monotonic() > deadline:
            self._stuck = True
            raise TimeoutError(f"not read for {self.patience_s:g} s")


def prepare() -> None:
    """Make the process's standard streams usable: call it first of all.

    A closed one (``>&-``) leads to /dev/null, lest a connection gets its number; stderr becomes a
    `LogStream`; a stdout that another process made non-blocking becomes blocking here.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_standard_streams()
    _make_blocking(sys.stdout)
    stderr = sys.stderr
    if stderr is sys.__stderr__ and isinstance(stderr, io.TextIOWrapper):
        sys.stderr = LogStream(stderr.fileno(), encoding=stderr.encoding)


def serve_on(notice: Notice) -> None:
    """Let a process that runs until stopped continue without its log where that cannot be written.

    ``notice`` makes a line of the log of a text.
    """
    stream = sys.stderr
    if not isinstance(stream, LogStream):
        return
    stream.notice = notice
    stream.patience_s = SERVICE_PATIENCE_S
    with contextlib.suppress(OSError):
        if not os.path.sameopenfile(stream.fileno(), 1):
            stream.elsewhere = 1


def _has_room(descriptor: int, timeout_s: float) -> bool:
    """Wait until a write would not wait, or would fail; False if that takes too long."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if timeout_s == float("inf") else timeout_s * 1000))


def _own_pipe(descriptor: int) -> int:
    """Return a non-blocking descriptor of the same pipe, which is no matter to other processes.

    Where that cannot be had, and for all but pipes, it is the given one.
    """
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            path = f"/proc/self/fd/{descriptor}"
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # no /proc, or the pipe belongs to another user
        pass
    return descriptor


def _make_blocking(stream: object) -> None:
    """Give a non-blocking stdout a file description of its own that blocks, where it is a pipe."""
    if not isinstance(stream, io.TextIOWrapper) or stream is not sys.__stdout__:
        return
    with contextlib.suppress(OSError):
        number = stream.fileno()
        own = number if os.get_blocking(number) else _own_pipe(number)
        if own != number:
            fcntl.fcntl(own, fcntl.F_SETFL, os.O_WRONLY)
            os.dup2(own, number)
            os.close(own)


def _open_standard_streams() -> None:
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
