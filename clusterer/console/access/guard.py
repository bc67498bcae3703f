"""The guard: every request passes it first, and nothing behind it runs without a user.

In this order: the host's name (a page of another site must not reach a local console under a name
of its own), the user, and for all methods that change something the role *operate* and the form's
token. Endpoints behind the guard find the user in `user_of`, the fields of the form in
``request.state.form``.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from clusterer.console.access.headers import with_caching
from clusterer.console.access.identity import Identity
from clusterer.console.access.requests import BodyTooLarge, BodyTooLate, form_of
from clusterer.console.access.sessions import Sessions
from clusterer.console.access.user import VISITOR, User, user_of
from clusterer.console.page import status_of
from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.runtime.logs import plain
from clusterer.store.console_users import Register

Answer = Callable[[Request, int, str], Awaitable[Response]]

log = logging.getLogger(__name__)

MOST_STREAMS = 500
"""Open event streams; one more is refused."""
MOST_PER_USER = 100
"""Open event streams of one user or token, or of the visitors at one address."""
MOST_PATH = 1_000
"""Characters of a path."""

_SAFE = ("GET", "HEAD")
_SCHEME = "bearer "
_PORT = re.compile(r":\d+$")
_OPEN_TO_ALL = frozenset({"/login", "/logout"})
"""Paths to which a user with the role *view* may post."""


class Refused(Exception):
    """The request does not pass."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class LoginNeeded(Refused):
    """A browser without a session asks for a page."""

    def __init__(self) -> None:
        super().__init__(303, "log in first")


class Guard:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: ASGIApp,
        identity: Identity,
        sessions: Sessions,
        answer: Answer,
        *,
        local: bool,
    ) -> None:
        """``local``: only this host reaches the console, so that it needs no users. ``answer``
        makes a page, or JSON, of a status and a sentence.
        """
        self._app = app
        self._identity = identity
        self._sessions = sessions
        self._answer = answer
        self._local = local
        self._streams = Counter[tuple[str, str]]()
        """Open event streams by kind and name of the user, or by address of the visitor."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = with_caching(send, static=scope["path"].startswith("/static/"))
        request = Request(scope, receive)
        try:
            await self._check(request)
        except ClientDisconnect:
            return
        except Refused as refused:
            response = await self._refusal(request, refused)
            await response(scope, receive, send)
            return
        except Exception:  # no layer below has answered: this answer has the headers, too
            log.exception("console: check of a request to %s failed", plain(request.scope["path"]))
            text = "internal error; the log of the console has more"
            await (await self._answer(request, 500, text))(scope, receive, send)
            return
        if not scope["path"].startswith("/live/"):
            await self._app(scope, receive, send)
            return
        owner = _owner(request)
        self._streams[owner] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._streams[owner] -= 1
            self._streams += Counter()  # forgets those without a stream

    async def _refusal(self, request: Request, refused: Refused) -> Response:
        if not isinstance(refused, LoginNeeded):
            return await self._answer(request, refused.status, str(refused))
        query = f"?{request.url.query}" if request.url.query else ""
        target = quote(request.scope["path"] + query, safe="")
        return RedirectResponse(f"/login?next={target}", refused.status)

    async def _check(self, request: Request) -> None:
        """Raise `Refused` for a request that may not pass; note the user and the form of others."""
        self._check_host(request)
        if len(request.scope["path"]) > MOST_PATH:
            raise Refused(414, f"the path has more than {MOST_PATH} characters")
        if request.scope["path"].startswith("/static/"):
            return
        try:
            known = await self._identity.register()
            user = request.state.user = await self._user(request, known)
            if request.method not in _SAFE:
                self._check_change(request, user)
                request.state.form = await form_of(request)
                self._check_form(request, user)
        except (InvalidArgument, StateUnavailable) as error:
            raise Refused(_status_of(error), str(error)) from error
        # Last: between this check and the count of the stream, no other request is served.
        if request.scope["path"].startswith("/live/"):
            self._check_streams(_owner(request))

    def _check_streams(self, owner: tuple[str, str]) -> None:
        if self._streams.total() >= MOST_STREAMS:
            raise Refused(503, f"{MOST_STREAMS} pages are open already; close some")
        if self._streams[owner] >= MOST_PER_USER:
            whose = f"{MOST_PER_USER} of your pages" if owner[0] else f"{MOST_PER_USER} pages"
            raise Refused(503, f"{whose} are open already; close some")

    def _check_host(self, request: Request) -> None:
        name = _PORT.sub("", request.headers.get("host", ""))
        if self._local and not _is_local(name):
            raise Refused(421, "this console answers this host only, as http://127.0.0.1")

    async def _user(self, request: Request, known: Register) -> User:
        path = request.scope["path"]
        by_script = path.startswith(("/api/", "/live/"))
        if given := request.headers.get("authorization", ""):
            token = given[len(_SCHEME) :].strip() if given.lower().startswith(_SCHEME) else ""
            user = await self._identity.by_token(known, token) if by_script else None
            if user is None:
                raise Refused(
                    401,
                    "the token is wrong or removed, or the path does not begin with /api/: "
                    "`clusterer console-token list` names the tokens",
                )
            return user
        if user := self._identity.by_session(known, request):
            return user
        if path == "/login" or (self._local and not known.has_users):
            return VISITOR
        raise self._without_user(request, known, by_script=by_script)

    @staticmethod
    def _without_user(request: Request, known: Register, *, by_script: bool) -> Refused:
        if not known.has_users:
            add = "`clusterer console-user add NAME --role view`"
            return Refused(403, f"the console has no users: run {add}")
        if by_script:
            return Refused(401, "log in, or send the header Authorization: Bearer TOKEN")
        if request.method not in _SAFE:
            return Refused(403, "the session has ended: log in again")
        return LoginNeeded()

    def _check_change(self, request: Request, user: User) -> None:
        if request.scope["path"] not in _OPEN_TO_ALL and not user.may_operate:
            raise Refused(403, "a change needs a user or token with the role operate")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refused(403, "the request comes from another site: use the form of this console")

    def _check_form(self, request: Request, user: User) -> None:
        if user.name and not user.session:
            return  # a script with a token: no other site can make it send a request
        owner = user.session
        if request.scope["path"] == "/login":
            owner = request.cookies.get(self._sessions.login_cookie, "")
        if not self._sessions.is_form_token(request.state.form.get("csrf", ""), owner):
            raise Refused(403, "the form is too old, or of another page: load the page again")


def _owner(request: Request) -> tuple[str, str]:
    """Return kind and name of a user, or an empty kind and the address of a visitor."""
    user = user_of(request)
    if user.name:
        return user.kind, user.name
    return "", request.client.host if request.client else ""


def _status_of(error: InvalidArgument | StateUnavailable) -> int:
    match error:
        case BodyTooLarge():
            return 413
        case BodyTooLate():
            return 408
    return status_of(error)


def _is_local(name: str) -> bool:
    """Whether a host's name means this host: ``localhost`` or a loopback address."""
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False  # such as 127.evil.example
