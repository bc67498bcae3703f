"""The pages to log in and out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from time import monotonic

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from clusterer.console.access.attempts import Attempts
from clusterer.console.access.identity import Identity
from clusterer.console.access.sessions import LASTS_S, Sessions
from clusterer.console.access.user import VISITOR, user_of
from clusterer.console.views import Views
from clusterer.runtime.logs import plain
from clusterer.services import Context
from clusterer.services.admin import console_users

log = logging.getLogger(__name__)

_SHOWN = 64
"""Characters of a wrong name in the log."""


class Login:
    """The routes ``/login`` and ``/logout``."""

    def __init__(
        self, context: Context, identity: Identity, sessions: Sessions, views: Views
    ) -> None:
        self._context = context
        self._identity = identity
        self._sessions = sessions
        self._views = views
        self._attempts = Attempts()

    @property
    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/login", self._form, methods=["GET"], name="login"),
            Route("/login", self._begin, methods=["POST"], name="login:do"),
            Route("/logout", self._end, methods=["POST"], name="logout:do"),
        ]

    async def _form(self, request: Request) -> Response:
        return self._shown(request, request.query_params.get("next", "/"))

    async def _begin(self, request: Request) -> Response:
        form: Mapping[str, str] = request.state.form
        name, password = form.get("name", ""), form.get("password", "")
        target, address = form.get("next", "/"), request.client.host if request.client else ""
        browser = self._sessions.browser(request, name)
        wait_s = ceil(self._attempts.wait_s(address, name, monotonic(), browser))
        if wait_s:
            text = f"Too many failed logins. Wait {wait_s} s, then try again."
            response = self._shown(request, target, name, text, 429)
            response.headers["Retry-After"] = str(wait_s)
            return response
        # Noted before the password is compared: many logins at once are not more than the limit.
        self._attempts.failed(address, name, monotonic(), browser)
        known = await self._identity.register()
        account = await self._identity.by_password(known, name, password)
        if account is None:
            log.warning("console: login of %s from %s failed", plain(name[:_SHOWN]), address)
            return self._shown(request, target, name, "Name or password is wrong.", 401)
        self._attempts.succeeded(address, name, browser)
        log.info("console: user %s logged in from %s", account.name, address)
        response = RedirectResponse(own_path(target), 303)
        self._sessions.begin(request, response, account)
        return response

    async def _end(self, request: Request) -> Response:
        user = user_of(request)
        if user.session:
            end = console_users.end_session
            await run_in_threadpool(end, self._context, user.session, LASTS_S)
            log.info("console: user %s logged out", user.name)
        response = RedirectResponse("/login", 303)
        self._sessions.forget(response)
        return response

    def _shown(
        self, request: Request, target: str, name: str = "", trouble: str = "", status: int = 200
    ) -> Response:
        token, own = self._sessions.before_login()
        html = self._views.render(
            "login.html",
            user=replace(VISITOR, csrf=token),
            title="Log in",
            next=own_path(target),
            name=name[:_SHOWN],
            trouble=trouble,
        )
        response = HTMLResponse(html, status)
        self._sessions.remember_login(request, response, own)
        return response


def own_path(target: str) -> str:
    """Return the path of a page of this console; ``/`` for any other target."""
    good = target.startswith("/") and not target.startswith(("//", "/\\", "/login"))
    return target if good and target.isprintable() else "/"
