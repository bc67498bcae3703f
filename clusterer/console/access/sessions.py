"""Signed cookies of sessions, and the tokens that protect forms from other sites (CSRF)."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from clusterer.console.access.user import User, stamp_of
from clusterer.store.console_users import Account

LASTS_S = 12 * 3600
"""A session ends after this time, used or not."""
KNOWN_S = 90 * 24 * 3600
"""Time after its last login for which a browser is known."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the cookie of a session says."""

    id: str
    name: str
    stamp: str
    """Version of the user's account at the login: a change of the account ends the session."""
    since: float
    """UNIX seconds of the login."""


class Sessions:
    """Signs and reads cookies and form tokens. A cookie names the user, and holds no role."""

    def __init__(self, key: bytes) -> None:
        mark = sha256(key).hexdigest()[:8]  # cookies do not know ports: consoles of one host differ
        self.cookie = f"clusterer-session-{mark}"
        self.login_cookie = f"clusterer-login-{mark}"
        self.browser_cookie = f"clusterer-browser-{mark}"
        self._sessions = URLSafeTimedSerializer(key, salt="session")
        self._browsers = URLSafeTimedSerializer(key, salt="browser")
        self._forms = URLSafeTimedSerializer(key, salt="form")

    def begin(self, request: Request, response: Response, account: Account) -> None:
        """Give the browser the cookie of a new session, and take that of the login form."""
        value = self._sessions.dumps([secrets.token_hex(16), account.name, stamp_of(account)])
        self._set(request, response, self.cookie, str(value))
        known = self._browsers.dumps([secrets.token_hex(16), account.name])
        self._set(
            request, response, self.browser_cookie, str(known), path="/login", lasts_s=KNOWN_S
        )
        response.delete_cookie(self.login_cookie, path="/login", httponly=True, samesite="strict")

    def session(self, request: Request) -> Session | None:
        """Return the session of the request's cookie; None without a valid one."""
        found, since = _loaded(self._sessions, request.cookies.get(self.cookie, ""))
        match found:
            case [str(session), str(name), str(stamp)]:
                return Session(session, name, stamp, since)
        return None

    def browser(self, request: Request, name: str) -> str:
        """Return the id of a browser that has logged in with this name before; else empty."""
        text = request.cookies.get(self.browser_cookie, "")
        match _loaded(self._browsers, text, KNOWN_S)[0]:
            case [str(browser), str(known)] if known == name:
                return browser
        return ""

    def forget(self, response: Response) -> None:
        """Take the cookie from the browser."""
        response.delete_cookie(self.cookie, path="/", httponly=True, samesite="strict")

    def before_login(self) -> tuple[str, str]:
        """Return the token of a login form, and the value of the cookie that belongs to it."""
        own = secrets.token_hex(16)
        return self.form_token(own), own

    def remember_login(self, request: Request, response: Response, own: str) -> None:
        """Give the browser the cookie of the login form."""
        self._set(request, response, self.login_cookie, own, path="/login")

    def form_token(self, owner: str) -> str:
        """Return a token for the forms of a session, or of a login."""
        return str(self._forms.dumps(owner))

    def is_form_token(self, token: str, owner: str) -> bool:
        """Whether the token is one for this session or login."""
        found, _ = _loaded(self._forms, token)
        same = isinstance(found, str) and hmac.compare_digest(found.encode(), owner.encode())
        return bool(owner) and same

    def user(self, session: Session, account: Account) -> User:
        """Return the user of a session."""
        token = self.form_token(session.id)
        return User(
            account.name,
            account.role,
            account.kind,
            session.stamp,
            session.id,
            token,
            session.since,
        )

    @staticmethod
    def has_expired(user: User) -> bool:
        """Whether the session of a user whose stream is open has lasted its time."""
        return bool(user.session) and time() - user.since > LASTS_S

    def _set(
        self,
        request: Request,
        response: Response,
        name: str,
        value: str,
        *,
        path: str = "/",
        lasts_s: int = LASTS_S,
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=lasts_s,
            path=path,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def _loaded(
    serializer: URLSafeTimedSerializer, text: str, lasts_s: int = LASTS_S
) -> tuple[Any, float]:
    """Return what a text says, and the UNIX seconds of its signature; None for a wrong text."""
    try:
        found, signed = serializer.loads(text, max_age=lasts_s, return_timestamp=True)
    except BadSignature:
        return None, 0.0
    return found, signed.timestamp()
