"""Sparklines: a few numbers as a small line. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 100, 24
"""Of the picture, in its own units."""


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
    step = WIDTH / max(1, len(values) - 1)
    parts, pen = [], "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        y = HEIGHT - 1 - value / top * (HEIGHT - 2)
        parts.append(f"{pen}{at * step:.1f} {y:.1f}")
        pen = "L"
    return "".join(parts) if "L" in "".join(parts) else ""
