"""``clusterer paths``: which senders do not reach which nodes, since when, and why."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import cluster_option, machine_option, with_settings
from clusterer.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterer.services.status.broken_paths import BrokenPaths, Row
    from clusterer.store import ClusterKey


@click.command()
@cluster_option("Show paths of this cluster_id only.")
@machine_option("--sender", about="Show paths from this machine_id only.")
@machine_option("--node", about="Show paths to this machine_id only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all fields.")
@with_settings()
def paths(
    settings: Settings,
    *,
    cluster: int | None,
    sender: int | None,
    node: int | None,
    as_json: bool,
) -> None:
    """Show which senders do not reach which nodes, since when, and why.

    A sender skips a node that the sender does not reach; other senders send to the node. The
    verdict is the state of the node: not up if no host reaches the node. The command prints
    only paths that are not up. `clusterer events --paths` shows the past.
    """
    from clusterer.services import Context
    from clusterer.services.status import broken_paths

    with closing(Context(settings)) as context:
        found = broken_paths.run(context, broken_paths.Filter(cluster, sender, node))
    if as_json:
        click.echo(json.dumps(broken_paths.as_json(found)))
        return
    if not found.rows:
        click.echo("All paths are up.")
        return
    _show(found)


def _show(found: BrokenPaths) -> None:
    from clusterer.cli import output

    console = output.console()
    clusters: dict[ClusterKey, list[Sequence[str]]] = {}
    for row in found.rows:
        clusters.setdefault(row.broken.key, []).append(_cells(row, found.now))
    for key, rows in clusters.items():
        output.paths_table(key, rows).print(console)


def _cells(row: Row, now: float) -> Sequence[str]:
    from clusterer.cli import text
    from clusterer.runtime.logs import plain

    item = row.broken
    return (
        str(item.sender),
        str(item.node.machine_id),
        item.condition.value,
        f"{item.path.no_tries}/{item.node.failed_attempts}",
        "?" if row.since is None else text.moment(row.since, now),
        text.ago(str(item.path.last_ms), now),
        item.node.condition.value,
        plain(item.path.reason),
    )
