"""A listener in a thread of the test, and BIN peers that talk to it from addresses of their own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from clusterer.listener import Listener, ReceiveInfo
from clusterer.settings import Settings
from clusterer.store import Directory, NodeStore
from clusterer.store.receipts import Receipts
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S, wait_until


@dataclass
class Recorded:
    """A callback that records its calls."""

    calls: list[tuple[int, ReceiveInfo | None, int]] = field(default_factory=list)
    act: Callable[[int], object] = lambda kind: None

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        self.calls.append((kind, info, machine_id))
        self.act(kind)

    @property
    def seen(self) -> list[tuple[int, int]]:
        """(packet type, machine_id) of each call."""
        return [(kind, machine_id) for kind, _, machine_id in self.calls]

    def wait_for(
        self, kind: int, machine_id: int, count: int = 1, timeout_s: float = EVENTUALLY_S
    ) -> None:
        """Wait for ``count`` calls with this type and machine_id."""
        wait_until(
            lambda: self.seen.count((kind, machine_id)) >= count,
            timeout_s,
            f"{count} times type {kind} of node {machine_id}",
        )


@contextlib.contextmanager
def listener_of(redis_url: str, server_id: int = 1, **settings: float | str) -> Iterator[Listener]:
    """Make a listener that serves nothing yet; stop it at the end."""
    chosen = Settings(server_id=server_id, redis_url=redis_url, **settings)  # type: ignore[arg-type]
    directory = Directory(NodeStore(chosen))
    listener = Listener(chosen, server_id, directory, Receipts(chosen))
    try:
        yield listener
    finally:
        listener.stop()
        directory.close()


def register(listener: Listener, callback: Recorded, **changes: object) -> Recorded:
    """Register ``callback`` for ratelimit of cluster 1, without a timeout, and return it.

    ``changes``: other arguments of the listener's `register`.
    """
    options = {"timeout_s": 0, "auth_check": True, "cluster_id": 1} | changes
    module = options.pop("module", "ratelimit")
    listener.register(module, callback, **options)  # type: ignore[arg-type]
    return callback


@contextlib.contextmanager
def serving(listener: Listener, *, ready: bool = True) -> Iterator[threading.Thread]:
    """Serve in a thread for the length of a ``with`` block, from the moment it is bound."""
    thread = threading.Thread(target=listener.serve, name="listener")
    thread.start()
    try:
        if ready:
            assert listener.ready.wait(EVENTUALLY_S), "the listener is not bound"
        yield thread
    finally:
        listener.stop()
        thread.join(EVENTUALLY_S)
        assert not thread.is_alive(), "the listener does not stop"


@contextlib.contextmanager
def peer(port: int, machine_id: int = 2, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Connect to ``host``:``port`` from 127.0.0.<machine_id>."""
    source = (f"127.0.0.{machine_id}", 0)
    with socket.create_connection(
        (host, port), timeout=EVENTUALLY_S, source_address=source
    ) as connection:
        yield connection


def send_until(
    connection: socket.socket,
    recorded: Recorded,
    kind: int,
    machine_id: int,
    timeout_s: float = EVENTUALLY_S,
) -> None:
    """Send packets of this type and machine_id until one of them gets through to ``last_seen``."""

    def arrived() -> bool:
        connection.sendall(frame(kind=kind, sender=machine_id))
        return (kind, machine_id) in recorded.seen

    wait_until(arrived, timeout_s, f"type {kind} of node {machine_id} passed on")


def ended(connection: socket.socket) -> bool:
    """Tell whether the other side has closed, waiting up to the socket's timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
