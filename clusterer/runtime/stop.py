"""The stop of a process: the signals that request it, and the flag that the signals set."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals with which people, init systems and a closed terminal end a process."""

_STDOUT = 1


def handle_stop_signals(handler: Callable[..., object]) -> None:
    """Handle and unblock the stop signals; an ignored SIGHUP stays ignored (nohup).

    The program that loaded this one may have blocked the signals until now.
    """
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in STOP_SIGNALS:
        if number is not signal.SIGHUP or not ignores_hangup:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


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


@contextmanager
def stop_on_signals(*, when_unread: bool = False) -> Iterator[StopFlag]:
    """Give a flag that SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal is gone) set.

    SIGHUP stays ignored where it is (nohup). With ``when_unread`` the flag is also set when the
    reader of stdout has ended (``| head``). For the main thread.
    """
    flag = StopFlag()
    watcher = threading.Thread(target=_watch_reader, args=(flag,), name="clusterer-stdout")
    if when_unread:
        watcher.start()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handle_stop_signals(lambda *_: flag.set())
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if when_unread:
            flag.set()
            watcher.join()
        flag.close()


def _watch_reader(flag: StopFlag) -> None:
    """Set ``flag`` when the pipe on stdout has no reader any more; end once it is set."""
    poller = select.poll()
    poller.register(_STDOUT, 0)  # errors are reported in any case
    poller.register(flag.fileno(), select.POLLIN)
    if any(found & (select.POLLERR | select.POLLHUP) for _, found in poller.poll()):
        flag.set()


def interrupt_on_signals() -> None:
    """Let the first SIGTERM, SIGINT or SIGHUP raise KeyboardInterrupt, and ignore all later ones.

    So cleaning up is not interrupted by an impatient second Ctrl-C. For the main thread.
    """
    handle_stop_signals(_interrupt)


def _interrupt(*_: object) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
