"""``clusterer up``, ``worker``, ``scheduler`` and ``ping``: the processes of one host."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import click

from clusterer.cli.options import RATELIMIT, Number, Seconds, require_web, with_settings
from clusterer.errors import ClustererError
from clusterer.runtime.logs import JSON
from clusterer.runtime.logs.formats import foreign_line
from clusterer.settings import WORKER_KINDS, Settings

if TYPE_CHECKING:
    from clusterer.processes import Line
    from clusterer.processes.progress import Alive

WITHIN_S = 30.0
"""Age of the last progress from which on a process counts as stuck: a busy delivery job notes
progress every 10 s, a sync of a slow database ends within 30 s."""

CONSOLE_PORT = 8088

_PREFIX = "{:<11} | "


@click.command()
@click.option("--console", is_flag=True, help="Serve the console as well (extra web).")
@click.option(
    "--console-port",
    metavar="N",
    type=Number(1, 65535),
    default=CONSOLE_PORT,
    show_default=True,
    help="TCP port of the console, on the loopback address.",
)
@with_settings(
    log_level=logging.INFO, also=RATELIMIT, log_prefix=_PREFIX.format("up"), with_origins=True
)
def up(settings: Settings, *, console: bool, console_port: int, origins: Mapping[str, str]) -> None:
    """Run all processes of one host, until Ctrl-C.

    The command starts an instance, a delivery and a maintenance worker, a database worker in
    persistent mode, and a scheduler. The command restarts a process that crashes. Without
    --redis-url the command starts a private Redis, without --db-url the command creates an
    SQLite file with two example rows, both in the data directory. Logs go to stderr.
    """
    from clusterer.services.admin import up as service

    if console:
        require_web()
    print_line = print_as_json if settings.log_format == JSON else print_with_name
    port = console_port if console else None
    service.run(settings, print_line, console_port=port, origins=origins)


def print_with_name(line: Line) -> None:
    """Print a child's line with the child's name before it."""
    click.echo(_PREFIX.format(line.name) + line.text, err=True)


def print_as_json(line: Line) -> None:
    """Print a child's line as JSON."""
    click.echo(foreign_line(line.text, process=line.name, at=time.time()), err=True)


@click.command()
@click.argument("kind", type=click.Choice(WORKER_KINDS))
@with_settings()
def worker(settings: Settings, kind: str) -> None:
    """Run an RQ worker until SIGTERM or Ctrl-C.

    \b
    delivery     sends the packets of instances whose BIN address is on this host
    maintenance  probes nodes, finds module timeouts, enqueues missing jobs
    database     writes states back to the table (persistent_mode)
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    replace_process("workers", kind, settings=settings)


@click.command()
@with_settings()
def scheduler(settings: Settings) -> None:
    """Run the scheduler of the periodic jobs.

    The scheduler runs until SIGTERM or Ctrl-C. Several may run, on one host or many: one is
    active, the others stand by.
    """
    replace_process("scheduler", settings=settings)


def replace_process(module: str, *arguments: str, settings: Settings) -> NoReturn:
    """Replace this process by a Python module; pid, blocked signals and settings stay."""
    from clusterer.processes import child_environment, python_command
    from clusterer.runtime.stop import STOP_SIGNALS

    command = python_command(module, *arguments)
    sys.stdout.flush()
    # Signals wait until the loaded program unblocks them: the program can then end properly.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        os.execve(command[0], command, child_environment(settings))  # noqa: S606
    except OSError as error:
        raise ClustererError(f"cannot run {' '.join(command)}: {error}") from error


@click.command()
@click.argument("kind", type=click.Choice(["node", "worker", "scheduler"]), required=False)
@click.option(
    "--within",
    metavar="SECONDS",
    type=Seconds(min=1),
    default=WITHIN_S,
    show_default=True,
    help="Age of the last progress at which a process counts as stuck.",
)
@with_settings()
def ping(settings: Settings, *, kind: str | None, within: float) -> None:
    """Check that this host's processes make progress.

    The exit code is 0 if at least one process runs with this data directory, and none is stuck.
    KIND selects instances, workers or schedulers. The command asks neither Redis nor the
    database: a process that waits for them makes progress.

    \b
        clusterer ping worker --within 60
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.processes.progress import living

    found = living(settings, kind or "")
    if not found:
        what = f"{kind} process" if kind else "process"
        raise ClustererError(f"no {what} runs with data_dir {settings.data_path}")
    stuck = [alive for alive in found if alive.age_s > within]
    if stuck:
        raise ClustererError("; ".join(map(described, stuck)) + "; restart the stuck processes")
    for alive in found:
        click.echo(described(alive))


def described(alive: Alive) -> str:
    """Return one process and the time of its last progress."""
    return f"{alive.kind} (pid {alive.pid}): last progress {alive.age_s:.0f} s ago"
