"""Several child processes: their output, and their common end."""

from __future__ import annotations

import selectors
import signal
import time
from typing import IO, Self

from clusterer.processes.child import Child, ChildSpec, Line

GRACE_S = 3.5
"""Time that children have to end after SIGTERM, before SIGKILL."""
LAST_GRACE_S = 1.0
"""The same for children that end last. Both times are well below 5 s, in which all must end."""
_POLL_S = 0.02


class ProcessGroup:
    """Children by name. As a context manager the group ends all of them, also after an error."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._selector.close()

    def start(self, spec: ChildSpec) -> Child:
        """Start a child; an ended child of the same name leaves. Raises `ClustererError`."""
        self._forget(spec.name)
        child = self.children[spec.name] = Child(spec)
        for stream in child.streams:
            self._selector.register(stream, selectors.EVENT_READ, child)
        return child

    def watch(self, descriptor: int) -> None:
        """Let `read` return at once when ``descriptor`` is readable; `read` leaves its data."""
        self._selector.register(descriptor, selectors.EVENT_READ, None)

    def read(self, timeout_s: float) -> list[Line]:
        """Wait at most ``timeout_s`` seconds for output of the children; return the lines."""
        lines: list[Line] = []
        for key, _ in self._selector.select(timeout_s):
            if key.data is not None:
                lines += self._read(key.data, key.fileobj)  # type: ignore[arg-type]  # ours
        return lines

    def end(self, grace_s: float = GRACE_S) -> list[Line]:
        """End all children: SIGTERM, and SIGKILL for those that run after ``grace_s`` seconds.

        Returns the lines of their output meanwhile. Children with `ChildSpec.last` end last.
        """
        last = [child for child in self.children.values() if child.spec.last]
        first = [child for child in self.children.values() if not child.spec.last]
        lines = self._end(first, grace_s) + self._end(last, min(grace_s, LAST_GRACE_S))
        for name in list(self.children):
            self._forget(name)
        return lines

    def _end(self, children: list[Child], grace_s: float) -> list[Line]:
        for child in children:
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        lines: list[Line] = []
        # A child that writes to a full pipe does not end.
        while any(child.exit_code is None for child in children) and time.monotonic() < deadline:
            lines += self._drain(children)
            time.sleep(_POLL_S)
        for child in children:
            child.kill()
        return lines + self._drain(children)

    def _drain(self, children: list[Child]) -> list[Line]:
        lines: list[Line] = []
        for key, _ in self._selector.select(0):
            if key.data in children:
                lines += self._read(key.data, key.fileobj)  # type: ignore[arg-type]  # ours
        return lines

    def _read(self, child: Child, stream: IO[bytes]) -> list[Line]:
        descriptor = stream.fileno()
        lines = list(child.lines(stream))
        if stream.closed:
            self._selector.unregister(descriptor)
        return lines

    def _forget(self, name: str) -> None:
        child = self.children.pop(name, None)
        if child is None:
            return
        child.kill()
        for stream in child.streams:
            self._selector.unregister(stream)
        child.close()
