"""Base of the modules in this package: registration, start and stop, and the timer thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, Self

from clusterer.errors import InvalidArgument
from clusterer.ids import PROTO_BIN
from clusterer.runtime import forks
from clusterer.runtime.logs import NodeLike
from clusterer.runtime.rounds import Rounds
from clusterer.settings import Settings
from clusterer.wire import Packet, PacketBuilder

if TYPE_CHECKING:
    from clusterer.listener import Listing, ReceiveInfo

_JOIN_S = 5.0
"""Longest wait for the last call to end; calls to an unreachable Redis end within 2 s."""

Clock = Callable[[], float]
"""Returns seconds."""


ModuleCallback = Callable[[int, "ReceiveInfo | None", int], object]


class Cluster(Protocol):
    """The part of `clusterer.Clusterer` that the modules use."""

    @property
    def settings(self) -> Settings: ...

    def get_nodes(self, cluster_id: int, proto: str) -> Sequence[NodeLike]: ...

    def reachable_nodes(self, cluster_id: int, proto: str) -> Sequence[NodeLike]: ...

    def snapshot_age_s(self) -> float: ...

    def packet(self, module: str, type: int, version: int = 1) -> PacketBuilder: ...

    def post(self, cluster_id: int, proto: str, packet: Packet) -> int: ...

    def register_module(  # noqa: PLR0917  these are the guide's arguments
        self,
        module_name: str,
        proto: str,
        callback: ModuleCallback,
        timeout: float,
        auth_check: bool,
        cluster_id: int | None,
    ) -> None: ...

    def list_for_others(self, cluster_id: int, listing: Listing) -> None: ...


class Module:
    """Registers its callbacks at the first `start`; a context manager that starts and stops."""

    def __init__(  # noqa: PLR0917  one registration's arguments
        self,
        clusterer: Cluster,
        name: str,
        cluster_id: int | None,
        callbacks: Sequence[tuple[ModuleCallback, float]],
        auth_check: bool,
        timer: Timer | None,
    ) -> None:
        """``cluster_id`` None: register nothing. ``callbacks``: each with its timeout, in seconds,
        0 for never. ``timer``: runs from `start` to `stop`. Raises `InvalidArgument` for a cluster
        of OpenSIPS 3.x.
        """
        require_dialect2(clusterer, name, cluster_id)
        self._clusterer = clusterer
        self._module = name
        self._cluster_id = cluster_id
        self._auth_check = auth_check
        self._unregistered = [] if cluster_id is None else list(callbacks)
        self._starting = forks.lock()
        self._timer = timer

    def start(self) -> None:
        """Register the callbacks and start the timer.

        Packets arrive only while the instance's `serve` runs. Raises `StateUnavailable`, with no
        timer started, if Redis is unavailable; the call may then be repeated.
        """
        with self._starting:
            while self._unregistered:
                callback, timeout = self._unregistered[0]
                self._clusterer.register_module(
                    self._module, PROTO_BIN, callback, timeout, self._auth_check, self._cluster_id
                )
                del self._unregistered[0]
        if self._timer is not None:
            self._timer.start()

    def stop(self) -> None:
        """Stop the timer. Packets that still arrive are handled as before."""
        if self._timer is not None:
            self._timer.stop()

    def _nodes(self) -> Sequence[NodeLike]:
        """Return the nodes of the cluster, for log lines."""
        return self._clusterer.get_nodes(self._cluster_id or 0, PROTO_BIN)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def require_dialect2(clusterer: Cluster, module: str, cluster_id: int | None) -> None:
    """Raise `InvalidArgument` if the nodes of a cluster are OpenSIPS 3.x: modules read 2.2 only."""
    if cluster_id in clusterer.settings.dialect3:
        raise InvalidArgument(
            f"cluster {cluster_id} is one of OpenSIPS 3.x (opensips_3_clusters): its packets of "
            f"{module} have another form, which only a registered callback reads"
        )


class Timer:
    """Calls ``action`` every ``interval`` seconds from `start` to `stop`, whatever it raises.

    The first call comes at once. A call that falls due while another one runs is left out. The
    thread is a daemon: it does not delay the end of the process. In a forked child, which has no
    such thread, the timer is stopped.
    """

    def __init__(self, name: str, action: Callable[[], object], interval: float) -> None:
        self._name = name
        self._action = action
        self._interval = interval
        self._lock = forks.lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        self._thread = None

    def start(self) -> None:
        """Start the calls, unless they run already."""
        with self._lock:
            if self._thread is None:
                self._stopped = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stopped,), name=self._name, daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End the calls and wait for one that runs; no call comes afterwards."""
        with self._lock:
            self._stopped.set()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)

    def _run(self, stopped: threading.Event) -> None:
        rounds = Rounds(self._name)
        due = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            with rounds.guard():
                self._action()
            due = max(due + self._interval, time.monotonic())
