"""Runs a command: every error becomes one line on stderr and an exit code."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys

import click

from clusterer.cli.root import cli
from clusterer.errors import (
    ClustererError,
    DatabaseUnavailable,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
)
from clusterer.runtime.logs import hidden, plain

log = logging.getLogger(__name__)

FAILED = 1
OUTPUT_UNWANTED = 141
"""128 + SIGPIPE, as in shells: the reader of the output, such as ``head``, has ended."""

_REMEDIES = {
    errno.EACCES: "run the command as a user with this right, or give this user the right",
    errno.EPERM: "run the command as a user with this right, or give this user the right",
    errno.EADDRINUSE: "`ss -lntup` shows the process with this address",
    errno.EADDRNOTAVAIL: "`ip address` shows the addresses of this host",
}
"""Remedies for errors of the system."""

_OUTPUT_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Errors of a full or broken disk behind the shell's ``>``."""


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter shows a ?
    try:
        return _run(arguments)
    except ClustererError as error:
        return _print_error(_with_advice(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_FAILS:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for good
            return _print_error(f"cannot write the output: {error.strerror}")
        # A bug: -v shows the traceback.
        log.debug("internal error", exc_info=True)
        return _print_error(f"internal error (-v shows more): {type(error).__name__}: {error}")


def _run(arguments: list[str]) -> int:
    stdout = sys.stdout
    try:
        code = cli.main(arguments, prog_name="clusterer", standalone_mode=False)
    except click.exceptions.Abort as error:  # click's form of KeyboardInterrupt
        raise KeyboardInterrupt from error
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except SystemExit as leaving:
        # When the reader of stdout has gone, click replaces stdout, and rich raises this.
        if sys.stdout is stdout and not isinstance(leaving.__context__, BrokenPipeError):
            raise
        return OUTPUT_UNWANTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _print_error(_with_usage(error), error.exit_code)
    return code if isinstance(code, int) else 0


def _with_advice(error: ClustererError) -> str:
    """Return the message, with a remedy if the message is a server's or the system's own."""
    message, cause = str(error), error.__cause__
    if "`clusterer " in message or (isinstance(error, DatabaseUnavailable) and error.advised):
        return message
    if isinstance(error, UnknownNode | UnknownCluster):
        return f"{message}; `clusterer list` shows all nodes"
    if isinstance(cause, OSError) and cause.errno in _REMEDIES:
        return f"{message}; {_REMEDIES[cause.errno]}"
    if isinstance(error, StateUnavailable) and ": Redis at " in message:
        from clusterer.endpoint import remedy

        what = remedy(error)
        return f"{message}; {what}" if what else message
    if isinstance(error, StateUnavailable | DatabaseUnavailable):
        return f"{message}; `clusterer doctor` shows the remedy"
    return message


def _with_usage(error: click.ClickException) -> str:
    """Return the message about wrong arguments, with the usage of the command."""
    message = error.format_message().rstrip()
    message += "" if message.endswith((".", "?")) else "."
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return message
    usage, command = context.get_usage(), context.command_path
    return f"{message} {usage}; `{command} --help` says more"


def _print_error(message: str, code: int = FAILED) -> int:
    click.echo(f"clusterer: {' '.join(hidden(plain(message)).split())}", err=True)
    return code
