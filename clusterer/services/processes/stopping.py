"""How people and init systems end a process that runs until told to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from clusterer.jobs import STOP_SIGNALS, StopFlag, handled_signals


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Give a flag that SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal is gone) set.

    SIGHUP stays ignored where it is (nohup). For the main thread.
    """
    flag = StopFlag()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in handled_signals():
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
    for number in handled_signals():
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
