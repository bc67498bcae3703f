"""Something done in a forked child of the test's process."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable

from tests.support.processes import EVENTUALLY_S, wait_until


def fork(child: Callable[[], object]) -> int:
    """Start a child that calls ``child``; its exit code is 0 if that returns a true value."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn of what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if child() else 2
        except BaseException as error:  # noqa: BLE001 - the child must end here
            print(f"child: {error!r}", file=sys.stderr, flush=True)
        os._exit(code)
    return pid


def result_of(pid: int, timeout_s: float = EVENTUALLY_S) -> int | None:
    """Return the exit code of a child; None, and end it, if it takes longer than ``timeout_s``."""

    def ended() -> tuple[int] | None:
        child, status = os.waitpid(pid, os.WNOHANG)
        return (os.waitstatus_to_exitcode(status),) if child else None

    try:
        return wait_until(ended, timeout_s)[0]
    except TimeoutError:
        os.kill(pid, signal.SIGABRT)  # so that faulthandler shows where it is
        os.waitpid(pid, 0)
        return None


def in_child(child: Callable[[], object]) -> int | None:
    """Return the exit code of a child that calls ``child``; see `fork` and `result_of`."""
    return result_of(fork(child))
