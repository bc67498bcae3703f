"""Names of modules as labels of metrics: printable, and bounded in number."""

from __future__ import annotations

MAX_LABELS = 64
"""Most modules with a label of their own: a program that invents names must not fill Prometheus."""

MAX_NAME = 64
"""Bytes, or characters, of the longest name with a label of its own."""

OTHERS = "(others)"
"""Label of all other modules together."""


class ModuleLabels:
    """Gives labels to the first modules that come. Safe to share between threads."""

    def __init__(self) -> None:
        self._labels: dict[bytes | str, str] = {}

    def of(self, name: bytes | str) -> str:
        """Return the label of the module with that name; one type of names per object."""
        label = self._labels.get(name)
        return self._new(name) if label is None else label

    def _new(self, name: bytes | str) -> str:
        if len(name) > MAX_NAME or len(self._labels) >= MAX_LABELS:
            return OTHERS
        return self._labels.setdefault(name, printable(name))


def printable(name: bytes | str) -> str:
    r"""Return a module's name with ``\xff`` for a byte that is no text."""
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogateescape")
    return name.decode("utf-8", "backslashreplace")
