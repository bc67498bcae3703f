"""A command in a terminal of its own, of a certain size; or one that is typed at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from tests.support.processes import EVENTUALLY_S, child_environment, wait_until

_LONGEST_S = EVENTUALLY_S


def in_terminal(
    arguments: list[str], environment: Mapping[str, str], *, columns: int = 80
) -> tuple[int, str]:
    """Run ``clusterer ARGUMENTS``; return its exit code and what stood on the screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    # Colours are what the terminal can do, not what the tests run under.
    plain = {"TERM": "xterm", "NO_COLOR": "", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-m", "clusterer", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=child_environment(plain | dict(environment)),
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := _read(ours):
            written += chunk
        return process.wait(_LONGEST_S), written.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        os.close(ours)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: the last one who could write has closed
        return b""


class Dialogue:
    """A program at a terminal, for the length of a ``with`` block; killed at its end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str, timeout_s: float = EVENTUALLY_S) -> None:
        """Wait until ``text`` has been shown; what stood before it is forgotten."""
        wait_until(lambda: self._has_shown(text), timeout_s, f"{text!r} on the terminal")
        self._shown = self._shown.partition(text)[2]

    def _has_shown(self, text: str) -> bool:
        if select.select([self._ours], [], [], 0)[0]:
            self._shown += _read(self._ours).decode(errors="replace")
        return text in self._shown


def last_screen(
    arguments: list[str], environment: Mapping[str, str], until: Callable[[str], object]
) -> str:
    """Run a command that draws on the whole of an 80 by 24 terminal; what is seen once it is so.

    Then the command is told to quit.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(ours, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "clusterer", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=child_environment({"TERM": "xterm", "NO_COLOR": "1"} | dict(environment)),
    )
    os.close(theirs)
    written: list[str] = []

    def seen() -> str | None:
        with contextlib.suppress(BlockingIOError):
            written.append(_read(ours).decode())
        _, *screens = "".join(written).split("\x1b[H")
        # The last one may not be whole yet.
        return next((text for text in map(_without_codes, screens[:-1]) if until(text)), None)

    try:
        found = wait_until(seen, _LONGEST_S, f"the screen that was wanted of {arguments}")
        os.write(ours, b"q")
        wait_until(lambda: seen() and process.poll() is not None, _LONGEST_S, "its end")
        return found
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n")
