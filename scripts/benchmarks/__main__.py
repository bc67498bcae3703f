"""The command line of ``scripts/bench``."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from types import FrameType
from typing import Any

import click
from rich.console import Console

from scripts.benchmarks.measures import GROUPS, Measure, chosen, known_keys
from scripts.benchmarks.plan import FULL, QUICK, Plan
from scripts.benchmarks.processes import BenchmarkFailed
from scripts.benchmarks.report import show
from scripts.benchmarks.system import System

NAMES = list(dict.fromkeys([*GROUPS, *known_keys()]))


class OutOfTime(BaseException):
    """The run has to end; not an Exception, so that no handler of a measurement catches it."""


@click.command(epilog=f"WHICH: {', '.join(NAMES)}. See docs/benchmarks.md.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--quick", is_flag=True, help="End within 50 seconds: fewer rounds.")
@click.option("--metrics", is_flag=True, help="Let delivery workers count for Prometheus.")
@click.argument("which", nargs=-1, type=click.Choice(NAMES), metavar="[WHICH]...")
@click.pass_context
def main(
    ctx: click.Context, as_json: bool, quick: bool, metrics: bool, which: tuple[str, ...]
) -> None:
    """Measure the clusterer next to the naive path and to the bare limit.

    WHICH are the figures to measure; "send" and "receive" are groups of figures, and "send" is
    the default. "peers" are NATS and Redis pub/sub; what is not installed is left out. "growth" is
    cost by number of nodes and senders.
    """
    plan = QUICK if quick else FULL
    begun = monotonic()
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(plan.ends_after_s)
    plan = replace(plan, end=begun + plan.ends_after_s * 0.9)
    progress = Console(stderr=True, highlight=False)
    results = measure(chosen(which, quick=quick), plan, progress, metrics=metrics)
    signal.alarm(0)
    results["seconds"] = round(monotonic() - begun, 1)
    if as_json:
        click.echo(json.dumps(results))
    else:
        show(results, Console(highlight=False, width=None if sys.stdout.isatty() else 100))
    ctx.exit(int(None in results.values()))


def measure(
    measures: list[Measure], plan: Plan, progress: Console, *, metrics: bool = False
) -> dict[str, Any]:
    """Run measurements one after the other; null for what failed or found no time."""
    results: dict[str, Any] = {}
    begun = monotonic()
    with ExitStack() as stack:
        system = System(stack, metrics=metrics)
        results["machine"] = machine(system)
        for number, one in enumerate(measures):
            names = ", ".join(one.keys)
            results |= dict.fromkeys(one.keys)
            progress.print(f"{monotonic() - begun:5.1f} s  {names}")
            try:
                with system.measurement():
                    results |= rounded(one.run(system, _share(plan, measures[number:])))
            except (BenchmarkFailed, TimeoutError) as error:
                progress.print(f"failed: {names}: {error}", style="red")
            except OutOfTime:
                progress.print(f"out of time while measuring {names}", style="red")
                return results | {key: None for left in measures[number:] for key in left.keys}
    return results


def _share(plan: Plan, left: list[Measure]) -> Plan:
    """Give the next of the measurements that are left its part of the time for rounds."""
    part = left[0].weight / sum(one.weight for one in left)
    return replace(plan, end=monotonic() + max(plan.end - monotonic(), 0) * part)


def rounded(value: Any) -> Any:
    """Round all figures in a result: to whole numbers from 1,000 on, else to three decimals."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return round(value) if abs(value) >= 1000 else round(value, 3)
    return value


def machine(system: System) -> dict[str, Any]:
    """Return cores, versions and kernel; nothing that names the host."""
    server: Any = system.client.info("server")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "redis": server.get("redis_version", "unknown"),
        "kernel": platform.release().split("-")[0],
    }


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTime


if __name__ == "__main__":
    main(prog_name="scripts/bench")
