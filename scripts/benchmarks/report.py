"""The figures as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.targets import verdicts

_TITLES = {
    "single": "send_to, one packet a call",
    "batch": "send_many, 100 packets a call",
}


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print everything that was measured."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    console.print(f"Machine: {machine}; 200-byte packets\n")
    for key, title in _TITLES.items():
        if results.get(key):
            console.print(_paths(f"{title}, {results[key]['packets']:,} a round", results[key]))
    others = {
        key: value
        for key, value in results.items()
        if key not in (*_TITLES, "machine", "seconds") and value is not None
    }
    if others:
        console.print(_figures(others))
    console.print(_verdicts(results))


def _paths(title: str, found: Mapping[str, Any]) -> Table:
    table = Table(title=f"{title}, 4 nodes, medians", title_justify="left")
    table.add_column("path")
    for name in ("packets/s", "deliveries/s", "lowest", "highest", "CPU µs/delivery"):
        table.add_column(name, justify="right")
    for name, figures in (
        ("ours", found),
        ("bare limit", found["limit"]),
        ("naive, 1 RQ job each", found["naive"]),
    ):
        low, high = figures["spread"]
        table.add_row(
            name,
            f"{figures['packets_per_s']:,}",
            f"{figures['deliveries_per_s']:,}",
            f"{low:,}",
            f"{high:,}",
            f"{figures['cpu_us_per_delivery']:,.2f}",
        )
    table.add_section()
    table.add_row("ours / naive", f"{found['vs_naive']:,.0f} x")
    table.add_row("ours / bare limit", f"{found['vs_limit']:.2f} x")
    return table


def _figures(found: Mapping[str, Any]) -> Table:
    table = Table(title="Other figures", title_justify="left", show_header=False)
    for key, value in found.items():
        table.add_row(key, _in_words(value))
    return table


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one:,}" for name, one in value.items())
    return str(value)


def _verdicts(results: Mapping[str, Any]) -> Table:
    table = Table(title="Targets", title_justify="left")
    table.add_column("what")
    table.add_column("target", justify="right")
    table.add_column("measured", justify="right")
    table.add_column("met")
    for verdict in verdicts(results):
        table.add_row(
            verdict.what,
            verdict.target,
            verdict.value,
            "yes" if verdict.met else "[bold red]NO[/]",
        )
    return table
