"""The command line: every command is one service call plus printing."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` (default: the process's) name; return its exit code.

    0 success, 1 an error that one line on stderr tells, 2 wrong usage, 130 interrupted.
    """
    from clusterer.cli.run import run  # noqa: PLC0415 - importing the package loads no click

    return run(list(sys.argv[1:] if arguments is None else arguments))
