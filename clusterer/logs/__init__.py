"""Log lines: for people or as JSON, with the node they are about, and never in floods."""

from clusterer.logs.fields import about, about_machine
from clusterer.logs.limited import LimitedLog
from clusterer.logs.plain import hidden, plain
from clusterer.logs.setup import JSON, configure, warn

__all__ = ["JSON", "LimitedLog", "about", "about_machine", "configure", "hidden", "plain", "warn"]
