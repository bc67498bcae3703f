"""The user of one request."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from starlette.requests import Request

from clusterer.store.console_users import OPERATE, TOKEN, USER, VIEW, Account


@dataclass(frozen=True, slots=True)
class User:
    """A user with a session, a script with a token, or a visitor of a console without users."""

    name: str
    """Empty for a visitor."""
    role: str = VIEW
    kind: str = USER
    stamp: str = ""
    """Names the account as it was when the request came."""
    session: str = ""
    """Id of the session; empty without one."""
    csrf: str = ""
    """Token that every form of this session has."""
    since: float = 0.0
    """UNIX seconds of the login; 0 without a session."""

    @property
    def may_operate(self) -> bool:
        """Whether the user may change the cluster."""
        return self.role == OPERATE

    @property
    def by(self) -> str:
        """The author of changes in the audit."""
        return f"operator {self.name} (console{' token' if self.kind == TOKEN else ''})"


VISITOR = User("")


def stamp_of(account: Account) -> str:
    """Return a text that another password, role or time of creation changes."""
    return sha256(account.value.encode()).hexdigest()[:16]


def user_of(request: Request) -> User:
    """Return the user of a request that the guard let pass; before that a visitor."""
    found = request.scope.get("state", {}).get("user", VISITOR)
    assert isinstance(found, User)  # noqa: S101 - only the guard sets it
    return found
