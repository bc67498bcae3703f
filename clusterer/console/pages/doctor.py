"""The page Doctor: the health check of all parts."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from clusterer.console import query
from clusterer.console.console import Console
from clusterer.console.page import Page, Parameters
from clusterer.services.doctor import Level


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return the findings of the last run, faults first; the first call begins a run.

    ``run``: number of a run after which another one begins. A run changes nothing, and a second
    request with the same number begins none.
    """
    if (run := query.whole(parameters, "run")) is not None:
        console.doctor_runs.begin(after=run)
    report = console.doctor_runs.report()
    order = [Level.ERROR, Level.WARN, Level.SKIPPED, Level.OK]
    findings = sorted(report.findings, key=lambda each: order.index(each.level))
    counts = {level.value: sum(each.level is level for each in findings) for level in order}
    running = report.running_s
    return {
        "run": report.number,
        "healthy": report.is_healthy,
        "began_at": report.began_at,
        "took_s": None if report.took_s is None else round(report.took_s, 3),
        "running_since": None if running is None else round(time.time() - running),
        "counts": counts,
        "checks": [asdict(each) | {"level": each.level.value} for each in findings],
    }


PAGE = Page("doctor", "/doctor", "Doctor", load, "doctor.html", query=("run",))
