"""Signed cookies of sessions, and the tokens that protect forms from other sites (CSRF)."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from clusterer.console.access.user import User, stamp_of
from clusterer.services.admin.console_users import Account

LASTS_S = 12 * 3600
"""A session ends after this time, used or not."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the cookie of a session says."""

    id: str
    name: str
    stamp: str
    """Of the user's account at the login: a change of the account ends the session."""


class Sessions:
    """Signs and reads cookies and form tokens. A cookie says who logged in; it holds no role."""

    def __init__(self, key: bytes) -> None:
        mark = sha256(key).hexdigest()[:8]  # cookies do not know ports: consoles of one host differ
        self.cookie = f"clusterer-session-{mark}"
        self.login_cookie = f"clusterer-login-{mark}"
        self._sessions = URLSafeTimedSerializer(key, salt="session")
        self._forms = URLSafeTimedSerializer(key, salt="form")

    def begin(self, request: Request, response: Response, account: Account) -> None:
        """Give the browser the cookie of a new session, and take that of the login form."""
        value = self._sessions.dumps([secrets.token_hex(16), account.name, stamp_of(account)])
        self._set(request, response, self.cookie, str(value))
        response.delete_cookie(self.login_cookie, path="/login", httponly=True, samesite="strict")

    def session(self, request: Request) -> Session | None:
        """Return the session of the request's cookie; None without a valid one."""
        found = _loaded(self._sessions, request.cookies.get(self.cookie, ""))
        match found:
            case [str(session), str(name), str(stamp)]:
                return Session(session, name, stamp)
        return None

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
        found = _loaded(self._forms, token)
        return bool(owner) and isinstance(found, str) and hmac.compare_digest(found, owner)

    def user(self, session: Session, account: Account) -> User:
        """Return the user of a session."""
        token = self.form_token(session.id)
        return User(account.name, account.role, account.kind, session.stamp, session.id, token)

    def _set(
        self, request: Request, response: Response, name: str, value: str, path: str = "/"
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=LASTS_S,
            path=path,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def _loaded(serializer: URLSafeTimedSerializer, text: str) -> Any:
    try:
        return serializer.loads(text, max_age=LASTS_S)
    except BadSignature:
        return None
