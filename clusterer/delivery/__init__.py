"""The delivery job: drains packet logs into BIN sockets, in order, whole frames only."""

from clusterer.delivery.engine import Engine

__all__ = ["Engine"]
