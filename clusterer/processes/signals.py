"""How people and init systems end a process that runs until told to."""

from __future__ import annotations

import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clusterer.jobs import STOP_SIGNALS, StopFlag, handled_signals

_STDOUT = 1


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
    for number in handled_signals():
        signal.signal(number, lambda *_: flag.set())
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
    for number in handled_signals():
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
