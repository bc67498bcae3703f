"""How people and init systems end a process that runs until told to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from clusterer.jobs import StopFlag

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Give a flag that SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal is gone) set.

    SIGHUP stays ignored where it is (nohup). For the main thread.
    """
    flag = StopFlag()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _handled():
        signal.signal(number, lambda *_: flag.set())
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        flag.close()


def interrupt_on_signals() -> None:
    """Let the first SIGTERM, SIGINT or SIGHUP raise KeyboardInterrupt, and ignore all later ones.

    So cleaning up is not interrupted by an impatient second Ctrl-C. For the main thread.
    """
    for number in _handled():
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _handled() -> list[signal.Signals]:
    return [
        number
        for number in _SIGNALS
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
