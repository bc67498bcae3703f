"""The templates: every value is escaped, and a name that does not exist is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clusterer.console import network_map, sparkline, timeline

HERE = Path(__file__).parent
STATIC = HERE / "static"


def environment() -> Environment:
    """Return the environment of all templates.

    Filters, each of UNIX seconds (Redis TIME): ``time`` (``<time>`` that the browser shows in its
    own zone), ``until`` ("in 21 s", counted down by the browser), ``since`` ("for 21 s", counted
    up). Their HTML stays the same while time passes, so they make no fragment change.
    ``number``: a number with its digits in groups.
    """
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters["time"] = time_element
    made.filters["until"] = until_element
    made.filters["since"] = since_element
    made.filters["number"] = number
    made.globals |= {
        "draw_map": network_map.draw,
        "sparkline": sparkline.curve,
        "spoken": sparkline.spoken,
        "timeline": timeline.draw,
    }
    return made


def time_element(seconds: float | None) -> Markup:
    """Return ``<time>`` with the UTC time; a script shows it in the browser's zone."""
    if not seconds:
        return Markup("never")
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # from the network: beyond the calendar
        return Markup("UNIX time {:.0f}").format(seconds)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds"),
        at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        at.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def until_element(seconds: float) -> Markup:
    """Return ``at 12:03:04 UTC``, which a script replaces by ``in 21 s`` and counts down."""
    return Markup('<span data-until="{}">at {}</span>').format(
        round(seconds * 1000), _clock(seconds)
    )


def since_element(seconds: float) -> Markup:
    """Return ``since 12:03:04 UTC``, which a script replaces by ``for 21 s`` and counts up."""
    return Markup('<span data-since="{}">since {}</span>').format(
        round(seconds * 1000), _clock(seconds)
    )


def number(value: float | None) -> str:
    """Return a number with groups of three digits, with a decimal below 100; a dash for None."""
    if value is None:
        return "\u2013"
    digits = 1 if value < 100 and value != int(value) else 0
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S UTC")


def render(environment: Environment, template: str, **values: Any) -> str:
    """Return the rendered template."""
    return environment.get_template(template).render(**values)
