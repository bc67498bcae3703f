"""One connection for one script that is run all the time: half the cost of redis-py's client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic
from typing import Any

import hiredis
import redis

from clusterer.settings import Settings
from clusterer.store.client import connect
from clusterer.store.scripts import Script

_IDLE_S = 0.5
"""Time without use after which it is checked whether Redis has closed the connection."""


class Channel:
    """Sends packed commands and reads their replies; redis-py connects and authenticates.

    Not safe to share between threads. Makes a new connection after a fork. Errors are redis-py's;
    after one the next call connects anew.
    """

    def __init__(self, settings: Settings) -> None:
        self._pool = connect(settings).connection_pool
        self._connection: Any = None
        self._made_in = 0
        self._used_at = 0.0

    def run(self, script: Script, calls: Sequence[tuple[bytes | str, ...]]) -> list[Any]:
        """Run ``script`` once per call (number of keys, keys, arguments); return the replies."""
        connection = self._ready()
        packed = [pack("EVALSHA", script.sha, *call) for call in calls]
        try:
            connection.send_packed_command(packed, check_health=False)
            replies = [self._reply(connection) for _ in calls]
        except BaseException:
            connection.disconnect()
            raise
        self._used_at = monotonic()
        for at, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):
                replies[at] = self._load_and_run(script, calls[at])
            elif isinstance(reply, Exception):
                raise reply
        return replies

    def close(self) -> None:
        """Close the connection; the next call makes another."""
        if self._connection is not None:
            self._connection.disconnect()

    def _load_and_run(self, script: Script, call: tuple[bytes | str, ...]) -> Any:
        command = pack("EVAL", script.text, *call)
        self._connection.send_packed_command([command], check_health=False)
        return self._connection.read_response()

    @staticmethod
    def _reply(connection: Any) -> Any:
        """Return the next reply; an error of the command itself as a value."""
        try:
            return connection.read_response()
        except redis.ResponseError as error:
            return error

    def _ready(self) -> Any:
        if self._made_in != os.getpid():
            self._connection = self._pool.make_connection()
            self._made_in = os.getpid()
        connection = self._connection
        if monotonic() - self._used_at > _IDLE_S:
            try:
                if connection.is_connected and connection.can_read():
                    connection.disconnect()
            except redis.RedisError:
                connection.disconnect()
        return connection


def pack(*parts: bytes | str) -> bytes:
    """Return one command as Redis reads it."""
    # hiredis's types know tuples of one part only.
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]
    return packed
