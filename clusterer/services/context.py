"""What services work with: the settings and, made on first use, what they lead to."""

from __future__ import annotations

from functools import cached_property

import redis

from clusterer import jobs
from clusterer.settings import Settings
from clusterer.store import NodeStore, connect
from clusterer.store.backlog import BacklogStore


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

    @cached_property
    def backlog(self) -> BacklogStore:
        """The delivery queues."""
        return BacklogStore(self.settings, self.redis)

    @cached_property
    def jobs_client(self) -> redis.Redis:
        """A client for RQ alone, which changes the timeouts of the one it gets."""
        return jobs.connect(self.settings)

    def close(self) -> None:
        """Close the connections that there are."""
        for name in ("redis", "jobs_client"):
            if name in self.__dict__:
                getattr(self, name).close()
