"""``clusterer up``: one machine's processes under one supervisor."""

from __future__ import annotations

import logging
import time

import click

from clusterer.cli.options import RATELIMIT, with_settings
from clusterer.processes import Line
from clusterer.runtime.logs import JSON
from clusterer.runtime.logs.formats import foreign_line
from clusterer.services.admin import up as service
from clusterer.settings import Settings

_PREFIX = "{:<11} | "


@click.command()
@with_settings(log_level=logging.INFO, also=RATELIMIT, log_prefix=_PREFIX.format("up"))
def up(settings: Settings) -> None:
    """Run everything one host needs, until Ctrl-C.

    Starts an instance, a delivery and a maintenance worker, a database worker in persistent
    mode, and a scheduler; restarts what crashes. With no Redis configured it starts a private
    one, with no database it makes an SQLite file with two example rows, both in the data
    directory. Logs go to stderr.
    """
    service.run(settings, say_json if settings.log_format == JSON else say)


def say(line: Line) -> None:
    """Pass on what a child printed, with its name before it."""
    click.echo(_PREFIX.format(line.name) + line.text, err=True)


def say_json(line: Line) -> None:
    """Pass on what a child printed, as JSON whatever it is."""
    click.echo(foreign_line(line.text, process=line.name, at=time.time()), err=True)
