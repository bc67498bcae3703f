"""The prober of a host: one thread that connects to nodes, and says whether this host reaches them.

The thread runs in a delivery worker's process, also while no job runs. Of several such processes on
a host one holds the lease and is the prober; the others try again each second.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic

import redis

from clusterer.endpoint import is_away
from clusterer.errors import StateUnavailable, WrongKey
from clusterer.prober.answers import Answers
from clusterer.prober.checks import Checks
from clusterer.prober.context import Context
from clusterer.prober.liveness import Liveness
from clusterer.prober.path_checks import PathChecks
from clusterer.prober.presence import Presence
from clusterer.prober.verdicts import Verdicts
from clusterer.prober.viewpoint import Viewpoint
from clusterer.runtime.rounds import Rounds
from clusterer.runtime.routes import is_local
from clusterer.settings import Settings
from clusterer.store import Directory, NodeStore, connect
from clusterer.store.format import require_format
from clusterer.store.paths import PathStore
from clusterer.store.probers import ProberRings, ProberStore
from clusterer.store.suspicions import SuspicionStore

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
"""Between two heartbeats."""

RETRY_S = 0.5
"""Pause after a failed round."""

FROZEN_S = 1.5
"""A turn that took longer means that the process was stopped: its checks are no evidence."""

BUSY_S = 0.1
"""Between two looks at the rings while checks run."""

LEAVE_S = 1.0
"""How long `Prober.close` waits for the thread."""


class Prober:
    """The thread of one process. `start` it once, `close` it at the end."""

    def __init__(self, settings: Settings, is_local: Callable[[str], bool] = is_local) -> None:
        """``is_local``: whether an IP address is one of this host."""
        client = connect(settings)
        nodes = NodeStore(settings, client)
        suspicions = SuspicionStore(settings, client)
        self._client = client
        self._settings = settings
        self._rings = ProberRings(settings, client)
        self._context = Context(
            settings=settings,
            nodes=nodes,
            directory=Directory(nodes),
            paths=PathStore(settings, client),
            suspicions=suspicions,
            probers=ProberStore(settings, client),
            verdicts=Verdicts(nodes, suspicions),
            viewpoint=Viewpoint(is_local),
            checks=Checks(),
        )
        self._answers = Answers(self._context)
        self._path_checks = PathChecks(self._context)
        self._presence = Presence(self._context)
        liveness = Liveness(self._context, self._presence)
        self._parts = self._answers, self._path_checks, liveness
        self._token = secrets.token_hex(8)
        self._leads: int | None = None
        """The machine_id whose lease this process holds."""
        self._beat_at = 0.0
        self._turned_at = inf
        self._stop = threading.Event()
        self._rounds = Rounds("prober")
        self._thread = threading.Thread(target=self._run, name="clusterer-prober", daemon=True)

    @property
    def leads(self) -> bool:
        """Whether this process is the prober of its host now."""
        return self._leads is not None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and leave the clusters: others need not wait for this host."""
        self._stop.set()
        leads = self._leads
        with suppress(StateUnavailable):
            if leads is not None:
                self._rings.ring(leads)
        if self._thread.is_alive():
            self._thread.join(LEAVE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - the thread runs until the process ends
                if not _is_outage(error):
                    self._rounds.failed(error)
                self._start_over()
                self._stop.wait(RETRY_S)
        self._leave()
        self._context.checks.close()

    def _start_over(self) -> None:
        """Forget what may be outdated: Redis was away, or another process was the prober."""
        self._leads = None
        self._beat_at = 0.0
        self._context.checks.drop()
        self._path_checks.forget()
        self._presence.forget()
        self._rings.forget()

    def _turn(self) -> None:
        """Do what is due, then wait for a ring, an answer or the next deadline."""
        now = monotonic()
        if now - self._turned_at > FROZEN_S:
            self._start_over()
        self._turned_at = now
        if now >= self._beat_at:
            self._beat()
            self._beat_at = monotonic() + HEARTBEAT_S
        if self._leads is None:
            self._stop.wait(max(0.0, self._beat_at - monotonic()))
            self._turned_at = monotonic()
            return
        for part in self._parts:
            part.turn()
        self._wait()

    def _wait(self) -> None:
        left_s = min(self._beat_at, *(part.next_at for part in self._parts)) - monotonic()
        busy = len(self._context.checks) > 0
        if busy:
            self._context.checks.turn(min(max(left_s, 0.0), BUSY_S))
        if self._rings.wait(0.0 if busy else max(left_s, 0.0)):
            self._answers.rung()

    def _beat(self) -> None:
        """Say that this host's prober is present, and read what may have changed."""
        context = self._context
        if self._leads is None:
            require_format(self._settings, self._client)
        context.refresh()
        me = context.viewpoint.prober
        if self._leads is not None and self._leads != me:
            self._leave()
        if me is None:
            return
        look = self._presence.is_due
        found = context.probers.heartbeat(me, self._token, context.viewpoint.clusters, look=look)
        if found is None:
            if self._leads is not None:
                self._start_over()
            return
        context.clock.tell(found.now_ms, monotonic())
        self._rings.listen(me, context.viewpoint.clusters)
        if self._leads is None:
            self._leads = me
            self._answers.rung()
        self._path_checks.notice(found.counters)
        if look:
            self._presence.notice(found.present)

    def _leave(self) -> None:
        leads, self._leads = self._leads, None
        if leads is not None:
            self._context.checks.drop()
            with suppress(StateUnavailable):
                self._context.probers.leave(leads, self._token, self._context.viewpoint.clusters)


def _is_outage(error: Exception) -> bool:
    """Whether Redis is away, which the worker itself logs."""
    cause = error.__cause__
    if not isinstance(error, StateUnavailable) or isinstance(error, WrongKey):
        return False
    return isinstance(cause, redis.RedisError) and is_away(cause)
