"""What services work with: the settings and, made on first use, what they lead to."""

from __future__ import annotations

from functools import cached_property

import redis

from clusterer.settings import Settings
from clusterer.store import NodeStore, connect


class Context:
    """Settings with the clients they lead to. Connects to nothing until something is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def redis(self) -> redis.Redis:
        """A client whose calls fail within 2 s; errors are redis-py's."""
        return connect(self.settings)

    @cached_property
    def nodes(self) -> NodeStore:
        """The nodes of all clusters."""
        return NodeStore(self.settings, self.redis)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "redis" in self.__dict__:
            self.redis.close()
