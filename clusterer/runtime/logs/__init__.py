"""Log lines: for people or as JSON, with fields about a node, limited in number."""

from clusterer.runtime.logs.formats import NodeLike, about, about_machine
from clusterer.runtime.logs.limited import LimitedLog
from clusterer.runtime.logs.plain import hidden, plain
from clusterer.runtime.logs.setup import JSON, configure, warn

__all__ = [
    "JSON",
    "LimitedLog",
    "NodeLike",
    "about",
    "about_machine",
    "configure",
    "hidden",
    "plain",
    "warn",
]
