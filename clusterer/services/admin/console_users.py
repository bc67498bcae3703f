"""Users and tokens of the console, with the role view or operate."""

from __future__ import annotations

import logging
import secrets
from functools import cache

from clusterer.errors import InvalidArgument
from clusterer.services.admin import scrypt
from clusterer.services.context import Context
from clusterer.store.console_users import (
    MOST_NAME,
    NAME,
    OPERATE,
    ROLES,
    TOKEN,
    USER,
    VIEW,
    Account,
    ConsoleUserStore,
    Register,
)
from clusterer.store.format import require_format

__all__ = [
    "MOST_NAME",
    "OPERATE",
    "ROLES",
    "TOKEN",
    "USER",
    "VIEW",
    "Account",
    "Register",
    "UnknownAccount",
    "add_token",
    "add_user",
    "end_session",
    "read",
    "remove",
    "token_account",
    "user_account",
]

log = logging.getLogger(__name__)

LEAST_PASSWORD = 10
MOST_PASSWORD = 1_000
"""Characters."""
_SECRET_BYTES = 32


class UnknownAccount(InvalidArgument):
    """The console has no user or token of this name."""


def read(context: Context) -> Register:
    """Return all users and tokens, and the sessions that have ended. Raises `StateUnavailable`."""
    return _store(context).read()


def add_user(context: Context, name: str, role: str, password: str) -> None:
    """Add a user. Raises `InvalidArgument` for a bad name, role or password, or a known name."""
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise InvalidArgument(
            f"the password has {len(password)} characters; it needs at least {LEAST_PASSWORD}, "
            f"and at most {MOST_PASSWORD}"
        )
    _check(name, role)
    _add(context, USER, name, role, scrypt.hashed(password))


def add_token(context: Context, name: str, role: str) -> str:
    """Add a token and return it: only its hash is kept. Raises the errors of `add_user`."""
    _check(name, role)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    _add(context, TOKEN, name, role, scrypt.hashed(secret, scrypt.TOKEN_COST))
    return f"{name}.{secret}"


def remove(context: Context, kind: str, name: str) -> None:
    """Remove a user or token; its sessions end at once. Raises `UnknownAccount`."""
    require_format(context.settings, context.redis)
    if not _store(context).remove(kind, name):
        raise UnknownAccount(f"the console has no {kind} {name!r}")
    log.info("console: %s %s removed", kind, name)


def user_account(known: Register, name: str, password: str) -> Account | None:
    """Return the account of a user, None if name or password are wrong.

    A wrong name takes as long as a wrong password, so that the time tells no names.
    """
    account = known.accounts.get((USER, name))
    right = scrypt.matches(password[:MOST_PASSWORD], account.secret if account else _no_account())
    return account if right else None


def token_account(known: Register, token: str) -> Account | None:
    """Return the account of a token, None if the token is wrong."""
    name, _, secret = token.rpartition(".")
    account = known.accounts.get((TOKEN, name))
    right = account is not None and scrypt.matches(secret[:MOST_PASSWORD], account.secret)
    return account if right else None


def end_session(context: Context, session: str, lasts_s: float) -> None:
    """End a session of a user, which would have lasted ``lasts_s`` at most."""
    now_ms = int(context.nodes.now() * 1000)
    _store(context).end(session, now_ms, now_ms + int(lasts_s * 1000))


def _check(name: str, role: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} is no name: letters, digits and . _ @ -, at most 64, a letter or digit first"
        )
    if role not in ROLES:
        raise InvalidArgument(f"role must be {' or '.join(ROLES)}, not {role!r}")


def _add(context: Context, kind: str, name: str, role: str, secret: str) -> None:
    require_format(context.settings, context.redis)
    account = Account(kind, name, role, int(context.nodes.now() * 1000), secret)
    if not _store(context).add(account):
        remedy = f"run `clusterer console-{kind} remove {name}` first"
        raise InvalidArgument(f"the console has a {kind} {name!r} already: {remedy}")
    log.info("console: %s %s added with the role %s", kind, name, role)


def _store(context: Context) -> ConsoleUserStore:
    return ConsoleUserStore(context.settings, context.redis)


@cache
def _no_account() -> str:
    return scrypt.hashed("")
