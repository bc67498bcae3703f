"""Prints the links of 3.x clusters, for `clusterer paths`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from clusterer.cli import text
from clusterer.cli.grid import Grid
from clusterer.cli.output import console
from clusterer.runtime.logs import plain
from clusterer.services.status.links import SeenLink

_COLOURS = {"up": "green", "probe": "yellow", "down": "red"}


def show(found: Sequence[SeenLink], now: float) -> None:
    """Print for each 3.x cluster what the instances see of its nodes."""
    clusters: dict[int, list[SeenLink]] = {}
    for each in found:
        clusters.setdefault(each.cluster_id, []).append(each)
    for cluster_id, links in clusters.items():
        table = Grid(f"Links of cluster {cluster_id}, OpenSIPS 3.x", gap=0)
        for name in ("From", "To", "State", "Since", "Through"):
            table.column(name, right=name in {"From", "To", "Through"})
        table.column("Up to", fold=True)
        table.column("Capabilities", fold=True)
        for each in links:
            table.row(*_cells(each, now))
        table.print(console())


def _cells(link: SeenLink, now: float) -> Iterable[str | Text]:
    record = link.record
    capabilities = (
        plain(name) if ok else f"{plain(name)} (no data)"
        for name, ok in sorted(record.capabilities.items())
    )
    return (
        str(link.instance),
        str(link.machine_id),
        Text(record.state, _COLOURS[record.state]),
        text.moment(record.since, now),
        "-" if record.next_hop is None else str(record.next_hop),
        ", ".join(map(str, record.neighbours)),
        ", ".join(capabilities),
    )
