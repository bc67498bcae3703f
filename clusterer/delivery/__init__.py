"""The delivery job: writes packet logs to BIN sockets, in order, whole frames only."""

from clusterer.delivery.engine import Engine

__all__ = ["Engine"]
