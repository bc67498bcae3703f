"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from types import FrameType
from typing import Any

from rich.console import Console

from scripts.benchmarks.children import BenchmarkFailed
from scripts.benchmarks.machine import machine
from scripts.benchmarks.measures import GROUPS, Measure, chosen, known_keys
from scripts.benchmarks.plan import FULL, QUICK, Plan
from scripts.benchmarks.report import show
from scripts.benchmarks.system import System

QUICK_ENDS_AFTER_S = 46
FULL_ENDS_AFTER_S = 1200


class OutOfTime(BaseException):
    """The run has to end; not an Exception, so that nothing on the way takes it for its own."""


def measure(
    measures: list[Measure], plan: Plan, progress: Console, *, metrics: bool = False
) -> dict[str, Any]:
    """Run measurements one after the other; null for what failed or found no time."""
    results: dict[str, Any] = {}
    begun = monotonic()
    with ExitStack() as stack:
        system = System(stack, metrics=metrics)
        results["machine"] = machine(system.client)
        for number, one in enumerate(measures):
            results |= dict.fromkeys(one.keys)
            progress.print(f"{monotonic() - begun:5.1f} s  {', '.join(one.keys)}")
            try:
                results |= one.run(system, _share(plan, measures[number:]))
            except (BenchmarkFailed, TimeoutError) as error:
                progress.print(f"failed: {', '.join(one.keys)}: {error}", style="red")
            except OutOfTime:
                progress.print(f"out of time while measuring {', '.join(one.keys)}", style="red")
                results |= {key: None for left in measures[number:] for key in left.keys}
                break
    return results


def _share(plan: Plan, left: list[Measure]) -> Plan:
    """Give the next of the measurements that are left its part of the time for rounds."""
    part = left[0].weight / sum(one.weight for one in left)
    return replace(plan, end=monotonic() + max(plan.end - monotonic(), 0) * part)


def main() -> int:
    """Measure and print; 0 if every measurement could be carried out."""
    options = _parser().parse_args()
    unknown = set(options.which) - {*GROUPS, *known_keys()}
    if unknown:
        _parser().error(f"unknown: {', '.join(sorted(unknown))}; there are {_names()}")
    seconds = QUICK_ENDS_AFTER_S if options.quick else FULL_ENDS_AFTER_S
    plan = replace(QUICK if options.quick else FULL, end=monotonic() + seconds * 0.9)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(seconds)
    begun = monotonic()
    progress = Console(stderr=True, highlight=False)
    measures = chosen(options.which, quick=options.quick)
    results = measure(measures, plan, progress, metrics=options.metrics)
    signal.alarm(0)
    results["seconds"] = round(monotonic() - begun, 1)
    if options.json:
        sys.stdout.write(json.dumps(results) + "\n")
    else:
        show(results, Console(highlight=False, width=None if sys.stdout.isatty() else 100))
    return int(any(value is None for value in results.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure our path next to the naive one and to the bare limit.",
        epilog=f"WHICH: {_names()}. See docs/benchmarks.md.",
    )
    parser.add_argument("--json", action="store_true", help="print one object, nothing else")
    parser.add_argument("--quick", action="store_true", help="end within 50 s: fewer rounds")
    parser.add_argument("--metrics", action="store_true", help="with the workers' metrics on")
    parser.add_argument("which", nargs="*", metavar="WHICH", help="measure only these")
    return parser


def _names() -> str:
    return ", ".join([*GROUPS, *known_keys()])


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTime


if __name__ == "__main__":
    sys.exit(main())
