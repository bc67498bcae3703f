"""Log lines: for people or as JSON, with fields about a node, limited in number."""

from clusterer.runtime.logs.formats import NodeLike, about, about_machine_id, hidden, plain, utc
from clusterer.runtime.logs.handler import JSON, configure, warn
from clusterer.runtime.logs.limited import LimitedLog

__all__ = [
    "JSON",
    "LimitedLog",
    "NodeLike",
    "about",
    "about_machine_id",
    "configure",
    "hidden",
    "plain",
    "utc",
    "warn",
]
