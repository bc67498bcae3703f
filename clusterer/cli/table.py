"""``clusterer init-db`` and ``clusterer reload``: the provisioning table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import click

from clusterer.cli.operator import operator
from clusterer.cli.options import with_settings
from clusterer.membership import Node
from clusterer.services import Context
from clusterer.services import init_db as init_service
from clusterer.services import reload as reload_service
from clusterer.services.reload import ReloadReport
from clusterer.settings import Settings


@click.command(name="init-db")
@click.option("--example", is_flag=True, help="Put in two nodes: 127.0.0.1 and 127.0.0.2.")
@with_settings()
def init_db(settings: Settings, example: bool) -> None:
    """Create the provisioning table, as OpenSIPS 2.2 expects it.

    Safe to repeat: a table that exists already stays as it is.
    """
    with closing(Context(settings)) as context:
        report = init_service.run(context, example=example)
    done = "created" if report.table_created else "exists"
    click.echo(f"Table {report.table} {done} in {report.database}.")
    for row in report.rows_added:
        click.echo(f"  added cluster {row.cluster_id}, machine {row.machine_id}: {row.url}")


@click.command()
@with_settings()
def reload(settings: Settings) -> None:
    """Load the provisioning table into Redis.

    Local changes of state are lost, except in persistent mode, where they are written to the
    table first. Rows that cannot be used are named and left out; the rest is loaded.
    """
    with closing(Context(settings)) as context:
        report = reload_service.run(context, by=operator())
    for line in described(report):
        click.echo(line)


def described(report: ReloadReport) -> Iterator[str]:
    """Yield the report's lines."""
    yield (
        f"Loaded {report.loaded} of {report.rows} rows of table {report.table} in "
        f"{report.database}: {len(report.added)} added, {len(report.changed)} changed, "
        f"{len(report.removed)} removed, {report.unchanged} unchanged, "
        f"{len(report.rejected)} rejected."
    )
    for node in report.added:
        yield f"  added    {_name(node)}"
    for change in report.changed:
        yield f"  changed  {_name(change.after)} ({', '.join(change.columns)})"
    for node in report.removed:
        yield f"  removed  {_name(node)}"
    for rejected in report.rejected:
        yield f"  rejected {rejected}"
    if report.flushed.written:
        yield f"Written to the table first: {report.flushed.written} changed nodes."
    if report.note:
        yield f"Note: {report.note}."


def _name(node: Node) -> str:
    return f"cluster {node.cluster_id}, machine {node.machine_id}: {node.url}"
