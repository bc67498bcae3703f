"""Small charts: a sparkline of a few numbers, and the past states of a node as a bar. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SPARK_WIDTH, HEIGHT = 100, 24
WIDTH = 1000
"""Of a sparkline and of a bar, in their own units."""
SPANS = ((900.0, "15 minutes"), (3_600.0, "an hour"), (21_600.0, "6 hours"), (86_400.0, "24 hours"))
"""Times that the bar can show, in seconds, and their names."""
STEP_S = 60.0
"""The bar moves in steps: it would change every second otherwise."""

_LEVELS = {"up": 8, "probing": 16, "disabled": 24, "down": 24, "absent": 2}
"""Height of a state: states differ by height, not by colour alone."""


def spoken(values: Sequence[float | None]) -> str:
    """Return the sparkline in words."""
    known = [value for value in values if value is not None]
    if not known:
        return "no samples"
    return f"from {min(known):g} to {max(known):g} packets per second, last {known[-1]:g}"


def curve(values: Sequence[float | None]) -> str:
    """Return the attribute ``d`` of an SVG path; a gap in the line for None. 0 is at the bottom.

    An empty text if there are fewer than two numbers.
    """
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = SPARK_WIDTH / max(1, len(values) - 1)
    parts, pen = [], "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        y = HEIGHT - 1 - value / top * (HEIGHT - 2)
        parts.append(f"{pen}{at * step:.1f} {y:.1f}")
        pen = "L"
    return "".join(parts) if "L" in "".join(parts) else ""


@dataclass(frozen=True, slots=True)
class Part:
    """A state, as a rectangle."""

    condition: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The past states of a node."""

    parts: tuple[Part, ...]
    span: str
    """Name of the time that the bar shows, such as ``6 hours``."""


def timeline(states: Sequence[Mapping[str, Any]], now: float) -> Timeline:
    """Return the bar of states with ``condition``, ``since`` and ``until`` (UNIX seconds).

    ``since`` is None for a state whose beginning is not known, ``until`` for the present one. The
    bar shows the shortest time that contains all beginnings; a day at most.
    """
    end = (now // STEP_S + 1) * STEP_S
    oldest = min((state["since"] for state in states if state["since"] is not None), default=0.0)
    span_s, name = next((each for each in SPANS if end - each[0] <= oldest), SPANS[-1])
    begin, found = end - span_s, []
    for state in states:
        since = max(begin, begin if state["since"] is None else state["since"])
        until = min(end, end if state["until"] is None else state["until"])
        if until > since:
            left = (since - begin) / span_s * WIDTH
            width = max(2.0, (until - since) / span_s * WIDTH)  # short states are seen
            height = _LEVELS.get(state["condition"], HEIGHT)
            top = HEIGHT - height
            found.append(Part(state["condition"], round(left, 1), top, round(width, 1), height))
    return Timeline(tuple(found), name)
