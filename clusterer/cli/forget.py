"""``clusterer forget``: delete what Redis keeps of a machine_id that is no longer used."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import ID, operator, with_settings
from clusterer.cli.text import age
from clusterer.settings import Settings

if TYPE_CHECKING:
    from clusterer.services.admin.forget import Forgotten


@click.command()
@click.argument("machine", type=ID)
@click.option(
    "--reason", metavar="TEXT", default="", help="Reason, which `clusterer events` shows."
)
@click.option("--force", is_flag=True, help="Delete also a machine_id in use, with its packets.")
@click.option("--dry-run", is_flag=True, help="Print the changes without making them.")
@with_settings()
def forget(settings: Settings, *, machine: int, reason: str, force: bool, dry_run: bool) -> None:
    """Delete what Redis keeps of a machine_id that is no longer used.

    The command deletes the packet log, counters and offsets of the sender, and the registrations
    and last-seen times of the instance. Without --force the command rejects a machine_id that
    has a node, an instance that is alive, or packets that are not delivered. The sweep job
    deletes the same, without packets, when a machine_id without a node was not used for a day.
    """
    from clusterer.services import Context
    from clusterer.services.admin import forget as service

    with closing(Context(settings)) as context:
        done = service.run(
            context, machine, by=operator(), reason=reason, force=force, dry_run=dry_run
        )
    click.echo(f"{'Would forget' if dry_run else 'Forgot'} machine {machine}: {_kept(done)}.")
    for name in done.keys:
        click.echo(f"  {name}")


def _kept(done: Forgotten) -> str:
    lost = f" ({done.undelivered} log entries not delivered)" if done.undelivered else ""
    alive = "never alive" if done.alive_s is None else f"last alive {age(done.alive_s)} ago"
    return f"{done.packets} packets sent{lost}, instance {alive}, {len(done.keys)} keys"
