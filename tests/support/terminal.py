"""A command in a terminal of its own, of a certain size."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping

from tests.support.processes import child_environment

_LONGEST_S = 30


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
