"""The server of one delivery run: another one, with other data, must not get what the run records.

After a failover the offsets and counts of a run belong to packets that the new master may lack.
"""

from __future__ import annotations

import redis

from clusterer.store.channel import Channel, evalsha
from clusterer.store.scripts import script


class SameReplid:
    """Refuses a new connection to a server whose replication id is not that of the run.

    The id changes with each promotion of a replica and each start of Redis.
    """

    def __init__(self) -> None:
        self._id = 0

    def begin(self) -> None:
        """Begin a run: any server will do."""
        self._id = 0

    def check(self, channel: Channel) -> None:
        """Ask the server that ``channel`` has connected to. Raises `redis.ConnectionError`."""
        lua = script("read_replid")
        (found,) = channel.run(lua, [evalsha(lua, "0")])
        before, self._id = self._id, found or self._id
        if before not in {0, self._id}:
            raise redis.ConnectionError("Redis has failed over or restarted since the last answer")
