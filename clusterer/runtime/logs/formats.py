"""The two forms of a log line, and its fields about a node.

Text from other programs and users must not steer a terminal, begin a line, or tell a secret.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol

_USER = re.compile(r"(?<=://)[^\s\"'<>]*@")
_OPTION = re.compile(r"(?<=password=)[^\s\"'&]+")
_HUMAN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SHORT = "%(asctime)s %(levelname)s %(message)s"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def plain(text: str, keep: str = "", instead: str = " ") -> str:
    """Return ``text`` with ``instead`` for control and other unprintable characters.

    The characters in ``keep`` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else instead for c in text)


def hidden(text: str) -> str:
    """Return ``text`` with *** for user and password of each URL in it.

    The texts come from libraries and from the command line; texts of this project hold no secrets.
    """
    if "://" in text:
        text = _USER.sub(lambda found: _masked(found[0]), text)
    return _OPTION.sub("***", text) if "password=" in text else text


def _masked(user: str) -> str:
    masked = user.endswith(":***@") and user.count("@") == 1
    return user if masked or user == "***@" else "***@"


class NodeLike(Protocol):
    """The attributes of a node that a log line has as fields."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def protocol(self) -> str: ...
    @property
    def machine_id(self) -> int: ...
    @property
    def url(self) -> str: ...


def about(node: NodeLike, **more: object) -> dict[str, object]:
    """Return the ``extra`` of a line about ``node``; ``more`` are further fields of the line."""
    return {
        "cluster": node.cluster_id,
        "protocol": node.protocol,
        "machine_id": node.machine_id,
        "url": node.url,
        **more,
    }


def about_machine_id(
    machine_id: int, nodes: Iterable[NodeLike], **more: object
) -> dict[str, object]:
    """Return the same for a machine_id: its first node among ``nodes``; it may have none."""
    own = next((node for node in nodes if node.machine_id == machine_id), None)
    return {"machine_id": machine_id, **more} if own is None else about(own, **more)


class HumanFormatter(logging.Formatter):
    """One line for people; ``prefix``, if any, stands before it instead of the logger's name."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__(f"{prefix.replace('%', '%%')}{_SHORT}" if prefix else _HUMAN)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it: without what could steer a terminal."""
        return plain(hidden(super().format(record)), keep="\n")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Add the node that the line is about, if its text does not name it."""
        record.message = plain(record.message)
        fields = vars(record)
        url = fields.get("url")
        if isinstance(url, str) and url not in record.message:
            place = f"{fields.get('cluster')}:{fields.get('protocol')}"
            record.message += f" [cluster {place} node {fields.get('machine_id')} {url}]"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, process, pid, message, and the line's
    ``extra``, for lines about a node cluster, protocol, machine_id and url.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": hidden(record.getMessage()),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = hidden(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def foreign_line(text: str, *, process: str, at: float) -> str:
    """Return as JSON a line that ``process`` printed at the UNIX time ``at``.

    A line that is JSON already stays as it is.
    """
    if text.startswith("{"):
        try:
            json.loads(text)
        except ValueError:
            pass
        else:
            return text
    return json.dumps({"time": utc(at), "level": "info", "process": process, "message": text})


def utc(at: float, timespec: str = "milliseconds") -> str:
    """Return a UNIX time as ISO 8601 in UTC: ``2026-11-22T23:15:00.000Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
