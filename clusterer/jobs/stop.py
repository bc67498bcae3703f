"""A stop flag that a signal handler may set, whatever the main thread is doing."""

from __future__ import annotations

import os
import select
import signal
import threading

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""How people, init systems and a terminal that goes away end a process."""


def handled_signals() -> list[signal.Signals]:
    """Return those to be handled: SIGHUP stays ignored where it is (nohup)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if number is not signal.SIGHUP or not ignored]


class StopFlag(threading.Event):
    """An Event that takes no lock, is never cleared, and can be watched as a file descriptor.

    A plain one that is set by a signal handler can deadlock with the wait it interrupts. This
    is a pipe: once set, its reading end is readable for good, so selectors see it at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._set = False
        self._reader, self._writer = os.pipe()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if not self._set:
            self._set = True
            os.write(self._writer, b"!")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, or for ``timeout`` seconds; return whether it is set."""
        if not self._set:
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            poller.poll(None if timeout is None else max(0, timeout * 1000))
        return self._set

    def fileno(self) -> int:
        """The descriptor that becomes readable when the flag is set; read nothing from it."""
        return self._reader

    def close(self) -> None:
        """Close the pipe; the flag must not be used any more."""
        os.close(self._reader)
        os.close(self._writer)
