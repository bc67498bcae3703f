"""``clusterer init-db`` and ``clusterer reload``: the provisioning table."""

from __future__ import annotations

from contextlib import closing

import click

from clusterer.cli.options import operator, with_settings
from clusterer.settings import Settings


@click.command(name="init-db")
@click.option("--example", is_flag=True, help="Add two nodes: 127.0.0.1 and 127.0.0.2.")
@with_settings()
def init_db(settings: Settings, example: bool) -> None:
    """Create the provisioning table, as OpenSIPS 2.2 expects it.

    A table that exists already stays as it is.
    """
    from clusterer.services import Context
    from clusterer.services.table import init_db as service

    with closing(Context(settings)) as context:
        report = service.run(context, example=example)
    done = "created" if report.table_created else "exists"
    click.echo(f"Table {report.table} {done} in {report.database}.")
    for row in report.rows_added:
        click.echo(f"  added cluster {row.cluster_id}, node {row.machine_id}: {row.url}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Print the changes without making them.")
@with_settings()
def reload(settings: Settings, *, dry_run: bool) -> None:
    """Load the provisioning table into Redis.

    The states in the table replace the states in Redis; in persistent mode the command first
    writes the states of Redis to the table. The command names invalid rows: their nodes stay as
    they were, and all other rows are loaded.
    """
    from clusterer.services import Context
    from clusterer.services.table import reload as service
    from clusterer.services.table.reload_text import described

    with closing(Context(settings)) as context:
        report = service.preview(context) if dry_run else service.run(context, by=operator())
    for line in described(report, dry_run=dry_run):
        click.echo(line)
