"""What a sender knows of its log, so that packets which a failover of Redis loses are counted.

A replica that is promoted may lack the last packets that the old master stored: replication is
asynchronous. Nothing in Redis shows it. The sender knows how many packets Redis had stored.
"""

from __future__ import annotations

import logging

from clusterer.membership.views import ClusterKey
from clusterer.runtime.logs import about_machine_id
from clusterer.store import keys
from clusterer.store.channel import Channel, evalsha
from clusterer.store.scripts import script

log = logging.getLogger(__name__)

_GAPS = 16
"""Gaps in the sequences of a log that Redis remembers: failovers while a packet waits."""


class Continuity:
    """The packet counts of a sender's log, and the replication id of the server that stored them.

    The id changes with each promotion of a replica and each start of Redis.
    """

    def __init__(self, sender: int) -> None:
        self._sender = sender
        self._script = script("resume_log")
        self._replid = 0
        self.counts: dict[ClusterKey, int] = {}
        """Packets that the log had of each cluster after the last append."""

    def resume(self, channel: Channel) -> None:
        """Go on with the log on a new connection, whose server may have lost packets.

        Log once how many packets the server has lost.
        """
        asked = tuple(self.counts)
        known = [text for key in asked for text in (str(key), str(self.counts[key]))]
        replid = str(self._replid or "")
        call = evalsha(self._script, "1", keys.counters(self._sender), replid, str(_GAPS), *known)
        ((self._replid, *lost),) = channel.run(self._script, [call])
        found = {str(key): count for key, count in zip(asked, lost, strict=False) if count}
        if found:
            log.error(
                "sender %s: Redis has lost %s, in a failover or a restart with older data: "
                "counted as lost for each node",
                self._sender,
                ", ".join(f"{count} packets to cluster {key}" for key, count in found.items()),
                extra=about_machine_id(self._sender, ()),
            )
