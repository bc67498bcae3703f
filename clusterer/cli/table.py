"""``clusterer init-db``, ``reload``, ``export`` and ``import``: the whole provisioning table."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import DRY_RUN, operator, with_context
from clusterer.errors import InvalidArgument, file_errors

if TYPE_CHECKING:
    from clusterer.provisioning import files
    from clusterer.services import Context
    from clusterer.services.provision import Changes

FORMATS = ("csv", "json")
_STANDARD = "-"
_MOST_BYTES = 64 * 2**20


@click.command(name="init-db")
@click.option("--example", is_flag=True, help="Add two nodes: 127.0.0.1 and 127.0.0.2.")
@with_context
def init_db(context: Context, example: bool) -> None:
    """Create the provisioning table, as OpenSIPS 2.2 expects it.

    A table that exists already stays as it is.
    """
    from clusterer.services.table import init_db as service

    report = service.run(context, example=example)
    done = "created" if report.table_created else "exists"
    click.echo(f"Table {report.table} {done} in {report.database}.")
    for row in report.rows_added:
        click.echo(f"  added cluster {row.cluster_id}, node {row.machine_id}: {row.url}")


@click.command()
@DRY_RUN
@with_context
def reload(context: Context, *, dry_run: bool) -> None:
    """Load the provisioning table into Redis.

    The states in the table replace the states in Redis; in persistent mode the command first
    writes the states of Redis to the table. The command names invalid rows: their nodes stay as
    they were, and all other rows are loaded.
    """
    from clusterer.services.table import reload as service
    from clusterer.services.table.reload_report import described

    report = service.preview(context) if dry_run else service.run(context, by=operator())
    for line in described(report, dry_run=dry_run):
        click.echo(line)


@click.command(name="export")
@click.argument("file", default=_STANDARD, type=click.Path(readable=False))
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="Format; by default that of the file's name, else csv.",
)
@with_context
def export(context: Context, *, file: str, kind: str | None) -> None:
    """Write the table to FILE, or to stdout.

    FILE gets all rows as they are in the table, without their ids; `clusterer import` reads it.
    """
    from clusterer.provisioning import files
    from clusterer.services import provision as service

    rows = service.export(context)
    text = files.render(rows, kind or ("json" if file.endswith(".json") else "csv"))
    if file == _STANDARD:
        click.echo(text.encode(), nl=False)  # UTF-8 as in a file, whatever the terminal's
        return
    with file_errors("write", file):
        _save(Path(file), text.encode())
    click.echo(f"{len(rows)} rows written to {file}.")


@click.command(name="import")
@click.argument("file", type=click.Path(readable=False))
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), help="Format; by default that of the content."
)
@click.option("--replace", is_flag=True, help="Remove the table's rows that FILE does not have.")
@DRY_RUN
@with_context
def import_(context: Context, *, file: str, kind: str | None, replace: bool, dry_run: bool) -> None:
    """Import FILE (- for stdin) into the table, in effect at once.

    The command adds rows for new nodes and changes the other rows. If a row is invalid, the
    command names each invalid row and changes nothing. The name of a row is its line in a CSV
    file, or its place in a JSON list, from 1.
    """
    from clusterer.services import provision as service

    rows = _read(file, kind or "")
    try:
        changes = service.import_rows(
            context, rows, by=operator(), replace=replace, dry_run=dry_run
        )
    except service.RowsRejected as error:
        for rejected in error.rejected:
            click.echo(f"  rejected {rejected}", err=True)
        raise
    _print_changes(changes, dry_run=dry_run)


def _save(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: the import of half a file could remove nodes."""
    path = path.resolve()
    special = path.exists() and not path.is_file()  # a pipe or a terminal
    if special or not os.access(path.parent, os.W_OK):
        path.write_bytes(content)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("xb") as stream:
            if path.exists():
                shutil.copymode(path, draft)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _read(file: str, kind: str) -> list[files.FileRow]:
    from clusterer.provisioning import files

    with file_errors("read", file):
        if file == _STANDARD:
            raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                raw = stream.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise InvalidArgument(f"{file} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        return files.parse(raw.decode("utf-8"), kind)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidArgument(f"{file}: line {line} is not UTF-8: save the file as UTF-8") from None
    except InvalidArgument as error:
        raise InvalidArgument(f"{file}: {error}") from None


def _print_changes(changes: Changes, *, dry_run: bool) -> None:
    head = "Would import into" if dry_run else "Imported into"
    click.echo(
        f"{head} table {changes.table} in {changes.database}: {len(changes.added)} added, "
        f"{len(changes.changed)} changed, {len(changes.removed)} removed, "
        f"{len(changes.unchanged)} unchanged."
    )
    for change in changes.added:
        click.echo(f"  added    {change.name}")
    for change in changes.changed:
        click.echo(f"  changed  {change.name} ({change.differences})")
    for change in changes.removed:
        click.echo(f"  removed  {change.name}")
