"""The master of a service that Sentinel watches, as the connections of a process share it.

A connection alone does not show a failover: for about ten seconds after `SENTINEL FAILOVER`, and
for as long as a partition lasts, the old master takes writes that are lost later. So a thread asks
the sentinels, and has all connections made again when they name another master.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from time import monotonic

from clusterer.endpoint.primary import Address, Server
from clusterer.endpoint.sentinel_url import SentinelPlace
from clusterer.endpoint.sentinels import Master, SentinelFailure, Sentinels
from clusterer.runtime import forks
from clusterer.runtime.rounds import Rounds

LOOK_EVERY_S = 0.5
"""Pause between two questions to the sentinels. A failover takes longer than a second."""

FRESH_S = 0.1
"""Time for which an answer of the sentinels counts for further new connections."""


class SentinelServer(Server):
    """One per service and process; all connections of all pools to the service share it."""

    most_addresses = 1
    UNFIT = "The server that Sentinel names takes no writes"

    def __init__(self, place: SentinelPlace) -> None:
        super().__init__()
        self._sentinels = Sentinels(place)
        self._master: Master | None = None
        self._asked_at = -FRESH_S
        self._lock = forks.lock()
        self._watched_by = 0
        """Process whose thread asks the sentinels."""
        self._rounds = Rounds("sentinel")

    def place(self, host: str, port: int) -> tuple[str, int]:
        master = self._master
        return (host, port) if master is None else (master.host, master.port)

    def must_prove(self, address: Address) -> bool:
        """Always: Sentinel may name a server that is not promoted yet, or is demoted by now."""
        return True

    def addresses(self, host: str, port: int) -> tuple[Address, ...]:
        """Ask the sentinels, and resolve the master's name. Raises `OSError`."""
        master = self._master
        if master is None or monotonic() - self._asked_at > FRESH_S:
            master = self._look()
        self._watch()
        return super().addresses(master.host, master.port)

    def _look(self) -> Master:
        """Ask the sentinels; have all connections made again if they name another master."""
        master, before = self._sentinels.master(), self._master
        self._master, self._asked_at = master, monotonic()
        if before is not None and (before.host, before.port) != (master.host, master.port):
            self._depart(demoted=True, teller=None)
        return master

    def _watch(self) -> None:
        """Have a thread ask the sentinels, as long as the process has connections."""
        with self._lock:
            if self._watched_by != os.getpid():
                self._watched_by = os.getpid()
                threading.Thread(target=self._look_on, name="sentinel", daemon=True).start()

    def _look_on(self) -> None:
        pause = threading.Event()
        while self._goes_on():
            pause.wait(LOOK_EVERY_S)
            with self._rounds.guard(), suppress(SentinelFailure):
                self._look()  # if that fails, connections that work stay

    def _goes_on(self) -> bool:
        with self._lock:
            if not self._connections:
                self._watched_by = 0
            return self._watched_by != 0


_servers: dict[tuple[object, ...], SentinelServer] = {}


def sentinel_server(place: SentinelPlace) -> SentinelServer:
    """Return the process's server of a service."""
    where = (place.service, *place.sentinels.values())
    return _servers.setdefault(where, SentinelServer(place))
