"""The sender's end of its packet log."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.client import connect, translated
from clusterer.store.scripts import script
from clusterer.store.views import ClusterKey


class PacketLog:
    """Appends one machine's packets to its log. Safe to share between threads."""

    def __init__(self, settings: Settings, sender: int, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._sender = sender
        self._client = client or connect(settings)
        self._append = script("append")
        queue = settings.delivery_queue
        self._keys = [
            keys.log(sender),
            keys.counters(sender),
            keys.pending(queue),
            keys.lease(sender),
            keys.wake(queue),
            keys.doorbell(queue),
            keys.QUEUES,
        ]

    def append(self, key: ClusterKey, frames: Sequence[bytes]) -> bool:
        """Append ``frames`` for the nodes of a cluster, in order and all or none.

        Returns True if the caller must enqueue a delivery job: nobody delivers for this sender
        and no job is on its way. Raises `StateUnavailable`; the frames may then have been stored
        nevertheless, if it was only the answer that was lost.
        """
        with translated(self._settings, "append to the packet log"):
            reply = self._append(
                self._client,
                self._keys,
                self._sender,
                key.cluster_id,
                key.protocol,
                self._settings.log_max_packets,
                self._settings.delivery_queue,
                *frames,
            )
        return bool(reply[1])
