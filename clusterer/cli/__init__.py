"""The command line: every command is one service call plus printing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130
"""128 + SIGINT, as shells know it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` (default: the process's) name; return its exit code.

    0 success, 1 an error that one line on stderr tells, 2 wrong usage, 130 interrupted.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_standard_streams()
    try:
        from clusterer.cli.run import run  # noqa: PLC0415 - Ctrl-C may come while all is loaded

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        sys.stderr.write("clusterer: interrupted\n")
        return INTERRUPTED


def _open_standard_streams() -> None:
    """Put /dev/null where a stream is closed (``>&-``), lest a connection gets its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
