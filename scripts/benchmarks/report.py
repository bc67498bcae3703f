"""The figures as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.targets import verdicts

_TITLES = {
    "single": "send_to, one packet a call",
    "batch": "send_many, 100 packets a call",
}
_APART = (*_TITLES, "machine", "seconds")


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print everything that was measured."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    console.print(f"Machine: {machine}; 200-byte packets\n")
    for key, title in _TITLES.items():
        if results.get(key):
            console.print(_paths(f"{title}, {results[key]['packets']:,} a round", results[key]))
    others = Table(title="Other figures", title_justify="left", show_header=False)
    for key, value in results.items():
        if key not in _APART and value is not None:
            for name, one in _parts(key, value):
                others.add_row(name, _in_words(one))
    if others.row_count:
        console.print(others)
    console.print(_verdicts(results))


def _paths(title: str, found: Mapping[str, Any]) -> Table:
    numbers = ("packets/s", "deliveries/s", "lowest", "highest", "CPU µs/delivery")
    table = _table(f"{title}, 4 nodes, medians", "path", *numbers)
    rows = {"ours": found, "bare limit": found["limit"], "naive, 1 RQ job each": found["naive"]}
    for name, one in rows.items():
        rates = [one["packets_per_s"], one["deliveries_per_s"], *one["spread"]]
        cells = [f"{rate:,.0f}" for rate in rates]
        table.add_row(name, *cells, f"{one['cpu_us_per_delivery']:,.2f}")
    table.add_section()
    table.add_row("ours / naive", f"{found['vs_naive']:,.0f} x")
    table.add_row("ours / bare limit", f"{found['vs_limit']:.2f} x")
    return table


def _parts(key: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield a row for a result, or for each part of one whose parts are results."""
    if isinstance(value, Mapping) and any(isinstance(one, Mapping) for one in value.values()):
        yield from ((f"{key} {name}", one) for name, one in value.items())
    else:
        yield key, value


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        words = ((name, one, _in_words(one)) for name, one in value.items())
        return ", ".join(
            f"{name}: ({text})" if isinstance(one, Mapping) else f"{name}: {text}"
            for name, one, text in words
        )
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _verdicts(results: Mapping[str, Any]) -> Table:
    table = _table("Targets", "what", "target", "measured")
    table.add_column("met")
    for one in verdicts(results):
        met = "yes" if one.met else "[bold red]NO[/]"
        table.add_row(one.what, one.target, one.value, met)
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
