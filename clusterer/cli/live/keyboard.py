"""Reads single keys from the terminal without Enter and echo; restores the terminal at the end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
import tty
from typing import Any, Self

from clusterer.runtime.stop import StopFlag

_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|[\x00-\xff]")

QUIT = (b"q", b"Q")


class Keyboard:
    """A context that reads keys; without a terminal on stdin it reads none."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    @property
    def there(self) -> bool:
        """Whether stdin is a terminal."""
        return self._before is not None

    def __enter__(self) -> Self:
        with contextlib.suppress(termios.error, OSError, ValueError):
            fd = sys.stdin.fileno()
            before = termios.tcgetattr(fd)
            self._before = before
            tty.setcbreak(fd)
            self._keep_out_of_the_background(fd)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        with contextlib.suppress(termios.error, OSError):  # the terminal is gone
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSAFLUSH, self._before)

    def _keep_out_of_the_background(self, fd: int) -> None:
        # After Ctrl-Z or Ctrl-\ the shell would have our screen and no echo.
        mode = termios.tcgetattr(fd)
        for name in (termios.VSUSP, termios.VQUIT):
            mode[6][name] = os.fpathconf(fd, "PC_VDISABLE").to_bytes(1, "little")
        termios.tcsetattr(fd, termios.TCSANOW, mode)

    def read(self, stop: StopFlag, wait_s: float) -> list[bytes]:
        """Wait at most ``wait_s`` for a key or ``stop``; return the pressed keys.

        An end of input (the terminal is gone) reads as `QUIT`.
        """
        if not self.there:
            stop.wait(wait_s)
            return []
        fd = sys.stdin.fileno()
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(stop.fileno(), select.POLLIN)
        if fd not in dict(poller.poll(max(0.0, wait_s) * 1000)):
            return []
        try:
            pressed = os.read(fd, 256)
        except OSError:
            pressed = b""
        return keys_in(pressed) if pressed else [QUIT[0]]


def keys_in(pressed: bytes) -> list[bytes]:
    """Split the bytes of a terminal into keys; an arrow or page key is one key."""
    return _KEY.findall(pressed)
