"""Renders pages: every value is escaped, and a name that does not exist is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from clusterer.console import charts, network_map
from clusterer.console.access.user import VISITOR, User, user_of
from clusterer.console.page import Page, Parameters, path_format

HERE = Path(__file__).parent
STATIC = HERE / "static"

_UNKNOWN_VERSION = "0"


class Views:
    """Renders templates with what `base.html` needs."""

    def __init__(self, menu: tuple[Page, ...]) -> None:
        self._environment = environment()
        self._menu = [page for page in menu if page.in_menu]
        self._static = {
            path.name: f"/static/{path.name}?{sha256(path.read_bytes()).hexdigest()[:8]}"
            for path in STATIC.iterdir()
            if path.is_file()
        }
        self._release = version("clusterer")

    def page(
        self,
        page: Page,
        content: dict[str, Any],
        *,
        parameters: Parameters | None = None,
        user: User = VISITOR,
        shown: str = _UNKNOWN_VERSION,
    ) -> str:
        """Return the page as HTML. ``shown``: the version from which the browser watches."""
        return self.render(
            page.template,
            title=content.get("title", page.title),
            page=page,
            content=content,
            user=user,
            version=shown,
            live_url="" if parameters is None else live_url(page, parameters),
        )

    def render(self, template: str, *, user: User, **values: Any) -> str:
        """Return a rendered template; ``values`` must have a ``title``."""
        return self._environment.get_template(template).render(
            {
                "page": None,
                "user": user,
                "menu": self._menu,
                "static": self._static.__getitem__,
                "release": self._release,
                "now_ms": round(time() * 1000),
                "csrf": partial(csrf_field, user.csrf),
            }
            | values
        )

    def message(self, request: Request, title: str, text: str, status: int) -> HTMLResponse:
        """Return a page with one sentence about an error."""
        html = self.render("message.html", user=user_of(request), title=title, text=text)
        return HTMLResponse(html, status)


def csrf_field(token: str) -> Markup:
    """Return the hidden field that every form has."""
    return Markup('<input type="hidden" name="csrf" value="{}">').format(token)


def live_url(page: Page, parameters: Parameters) -> str:
    """Return the URL of a page's events, with the query's parameters."""
    path = path_format(page.live_path).format(**parameters)
    query = {name: parameters[name] for name in page.query if name in parameters}
    return f"{path}?{urlencode(query)}" if query else path


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
    made.filters |= {
        "time": time_element,
        "until": until_element,
        "since": since_element,
        "number": number,
    }
    made.globals |= {
        "draw_map": network_map.draw,
        "sparkline": charts.curve,
        "spoken": charts.spoken,
        "timeline": charts.timeline,
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
    shown = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds"), shown, shown
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
