"""``clusterer up``: one host's processes under one supervisor."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import RATELIMIT, with_settings
from clusterer.runtime.logs import JSON
from clusterer.runtime.logs.formats import foreign_line
from clusterer.settings import Settings

if TYPE_CHECKING:
    from clusterer.processes import Line

_PREFIX = "{:<11} | "


@click.command()
@with_settings(log_level=logging.INFO, also=RATELIMIT, log_prefix=_PREFIX.format("up"))
def up(settings: Settings) -> None:
    """Run all processes of one host, until Ctrl-C.

    The command starts an instance, a delivery and a maintenance worker, a database worker in
    persistent mode, and a scheduler. A process that crashes is started again. Without
    --redis-url the command starts a private Redis, without --db-url it makes an SQLite file
    with two example rows, both in the data directory. Logs go to stderr.
    """
    from clusterer.services.admin import up as service

    service.run(settings, say_json if settings.log_format == JSON else say)


def say(line: Line) -> None:
    """Print a child's line with the child's name before it."""
    click.echo(_PREFIX.format(line.name) + line.text, err=True)


def say_json(line: Line) -> None:
    """Print a child's line as JSON."""
    click.echo(foreign_line(line.text, process=line.name, at=time.time()), err=True)
