"""Registrations of callbacks for modules, with their state of each node."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from clusterer.errors import InvalidArgument
from clusterer.ids import require_id, require_seconds
from clusterer.runtime import forks
from clusterer.store.watches import Watch
from clusterer.wire import Packet

Source = tuple[str, int] | None
"""IP address and port of a packet's sender; None for a notice."""


class ReceiveInfo(NamedTuple):
    """A packet and its source. A named tuple, because one is made per packet."""

    source: tuple[str, int]
    """IP address and port of the sender's connection."""
    packet: Packet


Callback = Callable[[int, ReceiveInfo | None, int], object]
"""Gets the packet type, the `ReceiveInfo` (None with SERVER_TIMEOUT) and the machine_id."""


@dataclass(eq=False, slots=True)
class Registration:
    """One callback of one module. The listener's thread alone uses its state."""

    watch: Watch
    callback: Callback
    """Called in the listener's thread: the module's function, or its callback queue."""
    auth_check: bool
    members: frozenset[int]
    """machine_ids of the cluster without this instance's, as of the last tick."""
    last_seen: dict[int, float] = field(default_factory=dict)
    """machine_id → monotonic time of its last packet since the last tick."""
    muted: dict[int, float] = field(default_factory=dict)
    """machine_id → monotonic time until which the node is muted."""

    @property
    def module(self) -> str:
        return self.watch.module

    @property
    def cluster_id(self) -> int:
        """0 for a registration without a cluster."""
        return self.watch.cluster_id


class Noted(Protocol):
    """The part of a registration in which the listener notes packets of nodes."""

    last_seen: dict[int, float]
    """machine_id → monotonic time of its last packet."""


class Registry:
    """All registrations of an instance, in order. Safe to share between threads."""

    def __init__(self, receiver: int) -> None:
        self._receiver = receiver
        self._lock = forks.lock()
        self._tokens: set[tuple[str, int]] = set()
        self.all: tuple[Registration, ...] = ()
        self.by_module: Mapping[str, tuple[Registration, ...]] = MappingProxyType({})

    def reserve(self, module: str, cluster_id: int, timeout_s: float) -> Watch:
        """Return the watch for one more registration; its token is unique."""
        with self._lock:
            number, token = 1, module
            while (token, cluster_id) in self._tokens:
                number += 1
                token = f"{module}#{number}"
            self._tokens.add((token, cluster_id))
        return Watch(self._receiver, token, module, cluster_id, math.ceil(timeout_s * 1000))

    def release(self, watch: Watch) -> None:
        """Free the token of a registration that failed."""
        with self._lock:
            self._tokens.discard((watch.token, watch.cluster_id))

    def add(self, registration: Registration) -> None:
        """Add a registration: from now on its callback gets packets."""
        with self._lock:
            known = self.by_module.get(registration.module, ())
            merged = {**self.by_module, registration.module: (*known, registration)}
            self.all = (*self.all, registration)
            self.by_module = MappingProxyType(merged)


def check_arguments(
    module: object, callback: Any, timeout_s: float, auth_check: bool, cluster_id: int | None
) -> None:
    """Raise `InvalidArgument` for a registration that cannot work."""
    if not isinstance(module, str) or not module or not _encodable(module):
        raise InvalidArgument(f"module must be a name such as 'ratelimit', not {module!r}")
    if not callable(callback):
        raise InvalidArgument(f"module {module!r}: callback {callback!r} cannot be called")
    require_seconds(f"module {module!r}: timeout", timeout_s)
    if cluster_id:
        require_id("cluster_id", cluster_id)
    elif auth_check:
        raise InvalidArgument(f"module {module!r}: auth_check needs a cluster_id to check against")
    elif timeout_s:
        raise InvalidArgument(f"module {module!r}: a timeout needs a cluster_id")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
