"""The blocking read of all claimed logs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import redis

from clusterer.endpoint import socket_of
from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.channel import pack
from clusterer.store.client import Clock, connect, translated
from clusterer.store.deliveries import LogEntry
from clusterer.store.log_reads import SenderUnusable, is_about_data
from clusterer.store.nodes import version_of

BLOCK_MS = 250
"""How long Redis holds a read that finds nothing. Leases are renewed in between."""

_MAX_MS = 2**64 - 1
"""Behind every id with the same sequence, whatever its time."""


class LogReader:
    """Sends one XREAD over many logs and the ring, and takes its reply when it is there.

    The same round trip brings the clusters' versions as they were after the read, and sets the
    ``clock``, if there is one.
    """

    def __init__(self, settings: Settings, queue: str, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._client = connect(settings)
        self._connection: Any = None
        self._client_id = 0
        self._ring = keys.ring(queue)
        self.rung = "0"
        """Id of the last entry of the ring that was read."""
        self._versions: Sequence[ClusterKey] = ()
        self.asked: dict[str, int] = {}
        """Logs in the read that is under way, and after which sequence."""
        self.busy = False

    def open(self) -> int:
        """Connect if necessary; return the descriptor to wait for. Raises `StateUnavailable`."""
        with translated(self._settings, "open the log reader"):
            connection: Any = self._connection or self._client.connection_pool.make_connection()
            if connection.ensure_primary():
                connection.send_command("CLIENT", "ID")
                self._client_id = int(connection.read_response())
                if self._clock is not None:
                    # Packets that waited are written before the first reply to `ask`.
                    connection.send_command("TIME")
                    self._tell(connection.read_response())
            self._connection = connection
        descriptor: int = socket_of(self._connection).fileno()
        return descriptor

    def _tell(self, time: Sequence[bytes]) -> None:
        """Set the clock by the reply to TIME."""
        if self._clock is not None:
            seconds, micros = map(int, time)
            self._clock.tell(seconds * 1000 + micros / 1000, monotonic())

    def settle(self) -> None:
        """Drop the answer under way, so that the connection can be used by the next job."""
        if self.busy:
            self.interrupt()
            self.take()

    def close(self) -> None:
        """Close the connections; an answer under way is dropped."""
        self.busy = False
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
        self._client.close()

    def ask(self, logs: Mapping[str, int], versions: Sequence[ClusterKey], count: int) -> None:
        """Start reading ``logs`` (key → after which sequence)."""
        self.asked = dict(logs)
        self._versions = versions
        names = [*self.asked, self._ring]
        ids = [f"{after}-{_MAX_MS}" for after in self.asked.values()]
        ids.append(self.rung)
        read = ("XREAD", "COUNT", str(count), "BLOCK", str(BLOCK_MS), "STREAMS", *names, *ids)
        # There may be no cluster at all; MGET wants a key, and answers nil to a stream's.
        check = ("MGET", self._ring, *(keys.version(*key) for key in versions))
        commands = [read, check] if self._clock is None else [read, check, ("TIME",)]
        with translated(self._settings, "read packet logs"):
            self._connection.send_packed_command([pack(*each) for each in commands], False)
        self.busy = True

    def interrupt(self) -> None:
        """Make the read that is under way answer at once."""
        with translated(self._settings, "interrupt the log reader"):
            self._client.client_unblock(self._client_id)

    def _reply(self) -> Any:
        """Return the answer of the read, an error about a value in Redis as a value."""
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            if not is_about_data(error):
                raise
            return error

    def _blame(self, error: redis.ResponseError) -> None:
        """Raise `SenderUnusable` for the first log that is no stream, else ``error``."""
        for name in self.asked:
            with translated(self._settings, "read packet logs"):
                kind = self._client.type(name)
            if kind not in {b"stream", b"none"}:
                raise SenderUnusable(int(name.rpartition(":")[2]), f"cannot read {name}: {error}")
        with translated(self._settings, "read packet logs"):
            raise error

    def take(self) -> tuple[dict[str, list[LogEntry]], dict[ClusterKey, int], bool]:
        """Return the reply: entries by log, versions by cluster, whether the ring rang."""
        with translated(self._settings, "read packet logs"):
            reply = self._reply()
            versions = self._connection.read_response()
            if self._clock is not None:
                self._tell(self._connection.read_response())
        self.busy = False
        if isinstance(reply, redis.ResponseError):
            self._blame(reply)
        found: dict[str, list[LogEntry]] = {}
        rung = False
        for name, entries in reply or ():
            key = name.decode()
            if key == self._ring:
                self.rung = entries[-1][0].decode()
                rung = True
            else:
                found[key] = entries
        known = zip(self._versions, versions[1:], strict=True)
        return found, {key: version_of(key, value) or 0 for key, value in known}, rung
