"""The kernel's help against orphans: a child gets a signal when its parent is gone."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def signal_at_parents_death(number: int) -> Callable[[], None]:
    """Return a ``preexec_fn`` that has the kernel send ``number`` to the child when we are gone.

    This also holds when we are killed by SIGKILL, and survives the child's exec. The kernel
    watches the *thread* that forked, not the process, so this must be called in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children must be started by the main thread: they die with it")
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        # Between fork and exec: nothing here but system calls.
        if prctl(_PR_SET_PDEATHSIG, number) != 0 or os.getppid() != parent:
            os._exit(127)  # the parent died before the kernel knew that we care

    return arrange
