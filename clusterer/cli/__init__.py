"""The command line: every command is one service call plus printing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from clusterer.runtime import streams

INTERRUPTED = 130
"""128 + SIGINT, as shells know it."""

_INTERRUPTED_TEXT = "clusterer: interrupted\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` (default: the process's) name; return its exit code.

    0 success, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted.
    """
    streams.prepare()
    if os.getpid() == 1:
        _handle_sigterm()
    try:
        with loading():
            from clusterer.cli.run import run
        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        sys.stderr.write(_INTERRUPTED_TEXT)
        return INTERRUPTED


@contextmanager
def loading() -> Iterator[None]:
    """Let Ctrl-C end the process at once while Python loads modules: the process has nothing to
    clean up, and Python can lose a KeyboardInterrupt during an import.
    """
    before = signal.getsignal(signal.SIGINT)
    in_charge = threading.current_thread() is threading.main_thread()
    if not in_charge or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _exit_interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _handle_sigterm() -> None:
    """Let SIGTERM and SIGHUP end this process until a command handles them.

    The kernel does not deliver a signal without a handler to PID 1, the first process of a
    container. An ignored SIGHUP stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _frame: os._exit(128 + number))


def _exit_interrupted(*_: object) -> None:
    with suppress(OSError):
        os.write(2, _INTERRUPTED_TEXT.encode())
    os._exit(INTERRUPTED)
