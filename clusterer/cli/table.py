"""``clusterer init-db`` and ``clusterer reload``: the provisioning table."""

from __future__ import annotations

from contextlib import closing

import click

from clusterer.cli.options import with_settings
from clusterer.services import Context
from clusterer.services import init_db as init_service
from clusterer.services import reload as reload_service
from clusterer.settings import Settings


@click.command(name="init-db")
@click.option("--example", is_flag=True, help="Put in two example rows.")
@with_settings()
def init_db(settings: Settings, example: bool) -> None:
    """Create the provisioning table, as an OpenSIPS 2.2 expects it.

    A table that exists already is left as it is.
    """
    with closing(Context(settings)) as context:
        init_service.run(context, example=example)
    click.echo(f"Table {settings.db_table} is ready.")


@click.command()
@with_settings()
def reload(settings: Settings) -> None:
    """Load the provisioning table into Redis.

    Local changes of state are lost, except in persistent mode, where they are written to the
    table first. Rows that cannot be used are named on stderr and left out; the rest is loaded.
    """
    with closing(Context(settings)) as context:
        report = reload_service.run(context)
    for rejected in report.rejected:
        click.echo(f"clusterer: row rejected: {rejected}", err=True)
