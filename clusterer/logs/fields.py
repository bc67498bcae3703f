"""What a log line about a node says of it, beside its text."""

from __future__ import annotations

import logging
from collections.abc import Iterable
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


def about_machine(machine_id: int, nodes: Iterable[NodeLike], **more: object) -> dict[str, object]:
    """Return the same for a machine, of whose nodes the first is meant; it may have none."""
    own = next((node for node in nodes if node.machine_id == machine_id), None)
    return {"machine_id": machine_id, **more} if own is None else about(own, **more)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what was given as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
