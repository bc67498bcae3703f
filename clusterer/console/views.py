"""Renders pages for a request: the page around the content depends on the user."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from importlib.metadata import version
from time import time
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from clusterer.console.access.user import VISITOR, User, user_of
from clusterer.console.page import Page, Parameters
from clusterer.console.templating import STATIC

_UNKNOWN_VERSION = "0"


class Views:
    """Renders templates with what `base.html` needs."""

    def __init__(self, environment: Environment, menu: tuple[Page, ...]) -> None:
        self._environment = environment
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
            live_url=live_url(page, parameters or {}),
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

    def message(
        self, request: Request, title: str, text: str, status: int = 200, kind: str = "error"
    ) -> HTMLResponse:
        """Return a page with one sentence."""
        html = self.render("message.html", user=user_of(request), title=title, text=text, kind=kind)
        return HTMLResponse(html, status)


def csrf_field(token: str) -> Markup:
    """Return the hidden field that every form has."""
    return Markup('<input type="hidden" name="csrf" value="{}">').format(token)


def live_url(page: Page, parameters: Parameters) -> str:
    """Return the URL of a page's events, with the query's parameters."""
    path = page.live_path
    for name, value in parameters.items():
        for form in (f"{{{name}:int}}", f"{{{name}}}"):
            path = path.replace(form, str(value))
    query = {name: parameters[name] for name in page.query if name in parameters}
    return f"{path}?{urlencode(query)}" if query else path
