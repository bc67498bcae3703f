"""What a log line about a node says of it, beside its text."""

from __future__ import annotations

import logging
from typing import Protocol

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class NodeLike(Protocol):
    """What a node is to a log line."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def protocol(self) -> str: ...
    @property
    def machine_id(self) -> int: ...
    @property
    def url(self) -> str: ...


def about(node: NodeLike, **more: object) -> dict[str, object]:
    """Return the ``extra`` of a line about ``node``; ``more`` are fields of the line's own."""
    return {
        "cluster": node.cluster_id,
        "protocol": node.protocol,
        "machine_id": node.machine_id,
        "url": node.url,
        **more,
    }


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what was given as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
