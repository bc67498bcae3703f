"""DNS names of nodes, resolved many at once and within a bounded time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from queue import Empty, SimpleQueue
from time import monotonic

from clusterer.provisioning.address import why_unusable

TIMEOUT_S = 4.0
"""Longest wait for all names of one reload together."""

_THREADS = 32

Lookup = Callable[[str], list[str]]
"""Takes a name and returns its IP addresses, raises OSError or UnicodeError if it has none."""


def system_lookup(name: str) -> list[str]:
    """Return the addresses that the system's resolver knows."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Names:
    """The addresses of names during one reload, which resolves each name once."""

    def __init__(self, lookup: Lookup = system_lookup, timeout_s: float = TIMEOUT_S) -> None:
        self._lookup = lookup
        self._timeout_s = timeout_s
        self.present: Mapping[str, Collection[str]] = {}
        """Name → addresses in use: one of them stays in use while the name leads to it."""
        self.addresses: dict[str, str] = {}
        """Name → IP address."""
        self.failures: dict[str, str] = {}
        """Name → why it has no address."""

    def resolve(self, names: Iterable[str]) -> None:
        """Resolve the ``names`` that are not known yet; those without an answer in time fail."""
        todo = set(names) - self.addresses.keys() - self.failures.keys()
        if not todo:
            return
        answers = self._ask(todo)
        deadline = monotonic() + self._timeout_s
        while todo:
            try:
                name, found = answers.get(timeout=max(0.0, deadline - monotonic()))
            except Empty:
                break
            todo.discard(name)
            self._note(name, found)
        for name in todo:
            self.failures[name] = f"no answer within {self._timeout_s:g} s"

    def _note(self, name: str, found: list[str] | Exception) -> None:
        if isinstance(found, Exception):
            self.failures[name] = getattr(found, "strerror", None) or str(found)
            return
        addresses = [ip_address(text) for text in found]
        usable = [address for address in addresses if not why_unusable(address)]
        if usable:
            self.addresses[name] = _choose(usable, self.present.get(name, ()))
        else:
            reasons = [why_unusable(address) for address in addresses]
            self.failures[name] = next(iter(reasons), "it has no address")

    def _ask(self, names: set[str]) -> SimpleQueue[tuple[str, list[str] | Exception]]:
        waiting: SimpleQueue[str] = SimpleQueue()
        answers: SimpleQueue[tuple[str, list[str] | Exception]] = SimpleQueue()
        deadline = monotonic() + self._timeout_s
        for name in names:
            waiting.put(name)

        def work() -> None:
            while monotonic() < deadline:
                try:
                    name = waiting.get_nowait()
                except Empty:
                    return
                try:
                    answers.put((name, self._lookup(name)))
                except (OSError, UnicodeError) as error:
                    answers.put((name, error))

        # Daemons, no executor: a resolver that hangs must not hold up the end of the process.
        for _ in range(min(_THREADS, len(names))):
            threading.Thread(target=work, name="clusterer-names", daemon=True).start()
        return answers


def _choose(addresses: Iterable[IPv4Address | IPv6Address], present: Collection[str] = ()) -> str:
    """Return an address that is ``present``, else the lowest IPv4 one, else the lowest IPv6 one.

    A loopback address only if all are.
    Name servers rotate their answers; the first would readdress a node at every reload. A host's
    own name often leads to a loopback address as well, where other hosts would reach themselves.
    """

    def rank(found: IPv4Address | IPv6Address) -> tuple[bool, bool, int, bytes]:
        return found.is_loopback, str(found) not in present, found.version, found.packed

    return str(min(addresses, key=rank))
