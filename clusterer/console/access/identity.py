"""Finds the user of a request: by a session's cookie, or by a token."""

from __future__ import annotations

import asyncio
from time import monotonic

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from clusterer.console.access.sessions import Sessions
from clusterer.console.access.user import User, stamp_of
from clusterer.services import Context
from clusterer.services.admin import console_users
from clusterer.store.console_users import TOKEN, USER, Account, Register

STREAM_CHECK_S = 1.0
"""Age of the register with which the users of open streams are compared."""

BESIDE_EACH_OTHER = 2
"""Passwords, and tokens, that threads compare at once: the other requests need threads, too."""


class Identity:
    """Users and tokens as Redis has them. For one event loop."""

    def __init__(self, context: Context, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions
        self._register = Register()
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()
        self._passwords = asyncio.Semaphore(BESIDE_EACH_OTHER)
        self._tokens = asyncio.Semaphore(BESIDE_EACH_OTHER)

    async def register(self) -> Register:
        """Return the users and tokens of this moment. Raises `StateUnavailable`."""
        return await run_in_threadpool(console_users.read, self._context)

    async def by_token(self, known: Register, token: str) -> User | None:
        """Return the script whose token this is; None for a wrong token."""
        async with self._tokens:
            account = await run_in_threadpool(console_users.token_account, known, token)
        if account is None:
            return None
        return User(account.name, account.role, TOKEN, stamp_of(account))

    async def by_password(self, known: Register, name: str, password: str) -> Account | None:
        """Return the account of a user; None for a wrong name or password."""
        async with self._passwords:
            return await run_in_threadpool(console_users.user_account, known, name, password)

    def by_session(self, known: Register, request: Request) -> User | None:
        """Return the user of the request's session; None without one, or if it has ended."""
        session = self._sessions.session(request)
        account = known.accounts.get((USER, session.name)) if session else None
        if session is None or account is None or session.id in known.ended:
            return None
        return self._sessions.user(session, account) if stamp_of(account) == session.stamp else None

    async def still(self, user: User) -> bool:
        """Whether the user of an open stream may still watch. Raises `StateUnavailable`.

        All streams share one read of the register per second.
        """
        if self._sessions.has_expired(user):
            return False
        known = await self._recent()
        if not user.name:
            return not known.has_users
        account = known.accounts.get((user.kind, user.name))
        same = account is not None and stamp_of(account) == user.stamp
        return same and user.session not in known.ended

    async def _recent(self) -> Register:
        async with self._lock:
            if monotonic() - self._read_at >= STREAM_CHECK_S:
                begun = monotonic()
                self._register = await self.register()
                self._read_at = begun
        return self._register
