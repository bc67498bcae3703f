"""Users and tokens of the console, and the sessions that their users have ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from clusterer.store import keys
from clusterer.store.badvalues import WrongType, bad, text
from clusterer.store.client import Store, translated

USER = "user"
TOKEN = "token"  # noqa: S105 - the kind of an account, no secret
KINDS = (USER, TOKEN)
VIEW = "view"
OPERATE = "operate"
ROLES = (VIEW, OPERATE)

MOST_NAME = 64
"""Characters of a name."""
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MOST_NAME - 1}}}", re.ASCII)
"""The form of a user's or token's name."""

MOST_ENDED = 10_000
"""Ended sessions that are kept; those that expire first are deleted."""

_FIELD = re.compile(rf"({'|'.join(KINDS)}):({NAME.pattern})", re.ASCII)
_VALUE = re.compile(
    rf"({'|'.join(ROLES)}) (\d{{1,15}}) (scrypt [\d ]+ [0-9a-f]+ [0-9a-f]+)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Account:
    """A user or a token of the console."""

    kind: str
    """``user`` or ``token``."""
    name: str
    role: str
    """``view`` or ``operate``."""
    since_ms: int
    """Redis ms of its creation."""
    secret: str
    """Hash of the password or of the token."""

    @property
    def field(self) -> str:
        """The field of the hash."""
        return f"{self.kind}:{self.name}"

    @property
    def value(self) -> str:
        """The field's value."""
        return f"{self.role} {self.since_ms} {self.secret}"


@dataclass(frozen=True, slots=True)
class Register:
    """All accounts of the console, and the sessions that their users have ended."""

    accounts: Mapping[tuple[str, str], Account] = field(default_factory=dict)
    """Kind and name → account."""
    ended: frozenset[str] = frozenset()
    is_damaged: bool = False
    """Whether Redis has something that may be a user, and cannot be read as one."""

    @property
    def has_users(self) -> bool:
        """Whether the console has a user, even one that cannot be read; a token is none."""
        return self.is_damaged or any(kind == USER for kind, _ in self.accounts)


class ConsoleUserStore(Store):
    """Reads and writes accounts. Raises `StateUnavailable`."""

    def read(self) -> Register:
        """Return all accounts, and the sessions that have ended. Wrong values are left out."""
        commands = [("hgetall", keys.CONSOLE_USERS), ("zrange", keys.CONSOLE_ENDED, 0, -1)]
        found, ended = self._read("read the users of the console", *commands)
        accounts = {(each.kind, each.name): each for each in _accounts(found)}
        may_be_users = sum(not each.startswith(f"{TOKEN}:".encode()) for each in found)
        users = sum(kind == USER for kind, _ in accounts)
        return Register(
            accounts,
            frozenset(map(text, ended)),
            is_damaged=isinstance(found, WrongType) or may_be_users > users,
        )

    def add(self, account: Account) -> bool:
        """Add an account; return whether there was none of this kind and name."""
        with translated(self._settings, "add a user of the console"):
            return bool(self._client.hsetnx(keys.CONSOLE_USERS, account.field, account.value))

    def remove(self, kind: str, name: str) -> bool:
        """Remove an account; return whether there was one."""
        with translated(self._settings, "remove a user of the console"):
            return bool(self._client.hdel(keys.CONSOLE_USERS, f"{kind}:{name}"))

    def end(self, session: str, now_ms: int, expires_ms: int) -> None:
        """Note that a session has ended; delete the notes of sessions that have expired."""
        with translated(self._settings, "end a session of the console"):
            pipe = self._client.pipeline(transaction=False)
            pipe.zremrangebyscore(keys.CONSOLE_ENDED, 0, now_ms)
            pipe.zadd(keys.CONSOLE_ENDED, {session: expires_ms})
            pipe.zremrangebyrank(keys.CONSOLE_ENDED, 0, -MOST_ENDED - 1)
            pipe.pexpireat(keys.CONSOLE_ENDED, expires_ms)
            pipe.execute()


def _accounts(found: Mapping[bytes, bytes]) -> Iterator[Account]:
    for raw_field, raw_value in found.items():
        field, value = text(raw_field), text(raw_value)
        named, given = _FIELD.fullmatch(field), _VALUE.fullmatch(value)
        if named is None:
            bad(keys.CONSOLE_USERS, "field", field, "user:NAME or token:NAME")
        elif given is None:
            # The value holds the hash of a secret, which no message may show.
            bad(keys.CONSOLE_USERS, f"field {field}", "its value", "role, time and hash")
        else:
            yield Account(named[1], named[2], given[1], int(given[2]), given[3])
