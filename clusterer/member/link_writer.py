"""Writes to Redis what an instance sees of its 3.x clusters, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

from clusterer.errors import StateUnavailable
from clusterer.runtime import forks
from clusterer.runtime.rounds import Rounds
from clusterer.store.links import RENEW_S, LinkRecord, LinkStore, Place

_PAUSE_S = 0.25
"""Between two writes: the pace of the instance's heartbeats."""
_AWAY_S = 1.0
_STOP_S = 2.0

Links = Mapping[Place, LinkRecord]


class LinkWriter:
    """Keeps the links of an instance in Redis; a slow Redis never blocks the event loop.

    There is no thread before the first link. Redis gets the links when they change, and a sign
    that they last every few seconds.
    """

    def __init__(self, server_id: int, store: LinkStore) -> None:
        self._server_id = server_id
        self._store = store
        self._latest: Links = {}
        self._written: Links | None = None
        """What Redis has; None if that is not known."""
        self._renew_at = 0.0
        self._signal = threading.Event()
        """Set when the links have changed, or the thread has to end."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        forks.renew_in_child(self)

    def report(self, links: Links) -> None:
        """Take the present links. In the listener's thread."""
        if links == self._latest:
            return
        self._latest = links
        self._signal.set()
        if self._thread is None and not self._stopping.is_set():
            name = "clusterer-links"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, and delete the links in Redis."""
        self._latest = {}
        self._stopping.set()
        self._signal.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._store.close()

    def renew_in_child(self) -> None:
        """Leave thread and links to the parent."""
        self._latest, self._thread = {}, None

    # -- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        rounds = Rounds("links")
        while not self._stopping.is_set():
            pause_s = _AWAY_S
            with rounds.guard():
                pause_s = self._round()
            self._stopping.wait(pause_s)
            self._signal.wait(max(self._renew_at - monotonic(), 0.0))
            self._signal.clear()
        with suppress(StateUnavailable):
            self._write()

    def _round(self) -> float:
        """Bring Redis up to date; return for how long to pause."""
        try:
            if self._latest != self._written or not self._store.renew(self._server_id):
                self._write()
        except StateUnavailable:  # the listener logs that
            self._written, self._renew_at = None, 0.0
            return _AWAY_S
        self._renew_at = monotonic() + RENEW_S
        return _PAUSE_S

    def _write(self) -> None:
        links = self._latest
        self._written = None
        self._store.write(self._server_id, links)
        self._written = links
