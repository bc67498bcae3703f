"""What a delivery worker reads of the packet logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis

from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.client import connect, translated
from clusterer.store.deliveries import LogEntry, by_cluster, decoded_numbers, firsts
from clusterer.store.nodes import version_of
from clusterer.store.scripts import script
from clusterer.store.usable import of_sender


class LogReads:
    """Reads entries, places and counters of the senders' logs.

    Not for more than one thread at a time.
    """

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._client = client or connect(settings)
        # Entries as Redis sends them: redis-py would make a dict of each.
        self._client.set_response_callback("XRANGE", lambda reply, **_: reply)

    def read(self, sender: int, after: int, count: int) -> list[LogEntry]:
        """Return up to ``count`` log entries that follow sequence ``after``."""
        with of_sender(self._settings, f"read the log of sender {sender}", sender):
            reply = self._client.xrange(keys.log(sender), str(after + 1), "+", count)
        return cast("list[LogEntry]", reply)

    def read_all(
        self, places: Sequence[tuple[int, int]], count: int, clusters: Sequence[ClusterKey]
    ) -> tuple[list[list[LogEntry]], dict[ClusterKey, int]]:
        """Return up to ``count`` entries that follow each (sender, sequence), in one round trip.

        `read_all` also returns the versions of the clusters after the read.
        """
        with translated(self._settings, "read logs"):
            pipe = self._client.pipeline(transaction=False)
            for sender, after in places:
                pipe.xrange(keys.log(sender), str(after + 1), "+", count)
            pipe.mget([keys.version(*key) for key in clusters])
            *found, versions = pipe.execute(raise_on_error=False)
        for (sender, _), entries in zip(places, found, strict=True):
            if isinstance(entries, redis.RedisError):
                with of_sender(self._settings, f"read the log of sender {sender}", sender):
                    raise entries
        if isinstance(versions, redis.RedisError):
            with translated(self._settings, "read the clusters' versions"):
                raise versions
        known = zip(clusters, versions, strict=True)
        return found, {key: version_of(key, version) or 0 for key, version in known}

    def seek(self, sender: int, generation: int, tail: int) -> int:
        """Return the sequence after which a node of this generation starts."""
        with of_sender(self._settings, f"search the log of sender {sender}", sender):
            return int(
                script("seek")(
                    self._client, [keys.log(sender), keys.counters(sender)], generation, tail
                )
            )

    def pass_over(self, sender: int, sequence: int) -> None:
        """Let later packets begin behind ``sequence``, that of an entry that cannot be read."""
        with of_sender(self._settings, f"pass over a log entry of sender {sender}", sender):
            script("pass_over")(self._client, [keys.counters(sender)], sequence)

    def delete_entries(self, sender: int, ids: Sequence[bytes]) -> None:
        """Delete entries of a log by their ids."""
        with of_sender(self._settings, f"delete log entries of sender {sender}", sender):
            self._client.xdel(keys.log(sender), *ids)

    def totals(self, sender: int) -> tuple[int, dict[ClusterKey, int]]:
        """Return the sequence of a sender's last packet, and its packet counts by cluster."""
        with of_sender(self._settings, f"read the counters of sender {sender}", sender):
            found = decoded_numbers(self._client.hgetall(keys.counters(sender)))
            return found.get("sequence", 0), by_cluster(found)

    def since_ms(self, sender: int) -> dict[ClusterKey, int]:
        """Return when a sender's first packet to each cluster was appended, Redis ms."""
        with of_sender(self._settings, f"read the counters of sender {sender}", sender):
            return firsts(decoded_numbers(self._client.hgetall(keys.counters(sender))))
