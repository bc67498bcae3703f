"""Users and tokens of the console, with the role view or operate."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
from functools import cache

from clusterer.errors import InvalidArgument
from clusterer.services.context import Context
from clusterer.store.console_users import (
    NAME,
    ROLES,
    TOKEN,
    USER,
    Account,
    ConsoleUserStore,
    Register,
)
from clusterer.store.format import require_format

log = logging.getLogger(__name__)

LEAST_PASSWORD = 10
MOST_PASSWORD = 1_000
"""Characters."""
_SECRET_BYTES = 32

PASSWORD_COST = 2**15
"""scrypt's N for passwords: 32 MiB and about 0.1 s each."""
TOKEN_COST = 2**10
"""scrypt's N for tokens: they have 256 random bits, so that no list of guesses finds them."""
_MOST_COST = 2**17
_BLOCK, _PARALLEL = 8, 1
_SALT_BYTES, _HASH_BYTES = 16, 32

_beside_each_other = threading.BoundedSemaphore(2)
"""Bounds the memory and the CPU of many logins at once."""


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
    _add(context, USER, name, role, hashed(password))


def add_token(context: Context, name: str, role: str) -> str:
    """Add a token and return it: only its hash is kept. Raises the errors of `add_user`."""
    _check(name, role)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    _add(context, TOKEN, name, role, hashed(secret, TOKEN_COST))
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
    right = matches(password[:MOST_PASSWORD], account.secret if account else _no_account())
    return account if right else None


def token_account(known: Register, token: str) -> Account | None:
    """Return the account of a token, None if the token is wrong."""
    name, _, secret = token.rpartition(".")
    account = known.accounts.get((TOKEN, name))
    right = account is not None and matches(secret[:MOST_PASSWORD], account.secret)
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
    return hashed("")


def hashed(secret: str, cost: int = PASSWORD_COST) -> str:
    """Return the hash of a secret, as text: ``scrypt N r p SALT HASH``."""
    salt = secrets.token_bytes(_SALT_BYTES)
    found = _scrypt(secret, salt, cost, _BLOCK, _PARALLEL)
    return f"scrypt {cost} {_BLOCK} {_PARALLEL} {salt.hex()} {found.hex()}"


def matches(secret: str, text: str) -> bool:
    """Whether ``text`` is the hash of ``secret``; a text that is no hash matches no secret."""
    try:
        kind, cost, block, parallel, salt, expected = text.split(" ")
        if kind != "scrypt" or int(cost) > _MOST_COST or int(block) > _BLOCK or int(parallel) > 1:
            return False
        found = _scrypt(secret, bytes.fromhex(salt), int(cost), int(block), int(parallel))
        return hmac.compare_digest(found, bytes.fromhex(expected))
    except ValueError:
        return False


def _scrypt(secret: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    with _beside_each_other:
        return hashlib.scrypt(
            secret.encode("utf-8", "surrogatepass"),
            salt=salt,
            n=cost,
            r=block,
            p=parallel,
            maxmem=256 * cost * block,
            dklen=_HASH_BYTES,
        )
