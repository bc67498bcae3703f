"""Log lines: for people or as JSON, with fields about a node, limited in number."""

from clusterer.logs.formats import NodeLike, about, about_machine
from clusterer.logs.limited import LimitedLog
from clusterer.logs.plain import hidden, plain
from clusterer.logs.setup import JSON, configure, warn

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
