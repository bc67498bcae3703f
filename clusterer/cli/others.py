"""``clusterer worker`` and ``clusterer scheduler``: replace this process by that program."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click

from clusterer import processes
from clusterer.cli.options import with_settings
from clusterer.errors import ClustererError
from clusterer.jobs import STOP_SIGNALS
from clusterer.settings import Settings


@click.command()
@click.argument("kind", type=click.Choice(processes.WORKER_KINDS))
@with_settings()
def worker(settings: Settings, kind: str) -> None:
    """Run an RQ worker until SIGTERM or Ctrl-C.

    \b
    delivery     sends the packets of instances whose BIN address is on this host
    maintenance  probes nodes, finds module timeouts, enqueues missing jobs
    database     writes states back to the table (persistent_mode)
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    become(processes.worker_command(kind), settings)


@click.command()
@with_settings()
def scheduler(settings: Settings) -> None:
    """Run the scheduler of the periodic jobs.

    The scheduler runs until SIGTERM or Ctrl-C. Several may run, on one host or many: one is
    active, the others stand by.
    """
    become(processes.scheduler_command(), settings)


def become(command: tuple[str, ...], settings: Settings) -> NoReturn:
    """Replace this process by ``command``, which keeps pid, signals and settings."""
    sys.stdout.flush()
    # Requests to stop wait until the program is loaded and can end properly; it admits them then.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        os.execve(command[0], command, processes.child_environment(settings))  # noqa: S606
    except OSError as error:
        raise ClustererError(f"cannot run {' '.join(command)}: {error}") from error
