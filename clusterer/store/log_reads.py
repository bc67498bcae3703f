"""What a delivery worker reads of the packet logs, and errors about the keys of one sender."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import redis

from clusterer.endpoint import error_text
from clusterer.errors import StateUnavailable
from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import is_bad_data, wrong_types
from clusterer.store.client import Store, translated
from clusterer.store.deliveries import LogEntry, by_cluster, decoded_numbers, firsts
from clusterer.store.nodes import version_of
from clusterer.store.scripts import script

_HASHES = (keys.counters, keys.committed, keys.committed_count, keys.stats)
"""Hashes of a sender whose values are numbers."""


class SenderUnusable(StateUnavailable):
    """A key of one sender's deliveries has a bad value; other senders are not affected."""

    def __init__(self, sender: int, message: str) -> None:
        super().__init__(message)
        self.sender = sender


def is_about_data(error: BaseException | None) -> bool:
    """Whether an error comes from a value in Redis, and not from the server or the connection."""
    return isinstance(error, ValueError) or is_bad_data(error)


class of_sender(translated):  # noqa: N801 - reads as a word of the `with` statement
    """Turns an error about one sender's values into `SenderUnusable`; others as `translated`."""

    __slots__ = ("_sender",)

    def __init__(self, settings: Settings, what: str, sender: int) -> None:
        super().__init__(settings, what)
        self._sender = sender

    def _translate(self, error: BaseException) -> None:
        if is_about_data(error):
            text = error_text(error) if isinstance(error, redis.RedisError) else str(error)
            raise SenderUnusable(self._sender, f"cannot {self._what}: {text}") from error
        super()._translate(error)


class LogReads(Store):
    """Reads entries, places and counters of the senders' logs.

    Not for more than one thread at a time.
    """

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client)
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
        names = [keys.log(sender), keys.counters(sender)]
        found = self._run_for(sender, "search the log", "seek", names, generation, tail)
        return int(found)

    def pass_over(self, sender: int, sequence: int) -> None:
        """Let later packets begin behind ``sequence``, that of an entry that cannot be read."""
        names = [keys.counters(sender)]
        self._run_for(sender, "pass over a log entry", "pass_over", names, sequence)

    def delete_entries(self, sender: int, ids: Sequence[bytes]) -> None:
        """Delete entries of a log by their ids."""
        with of_sender(self._settings, f"delete log entries of sender {sender}", sender):
            self._client.xdel(keys.log(sender), *ids)

    def totals(self, sender: int) -> tuple[int, dict[ClusterKey, int]]:
        """Return the sequence of a sender's last packet, and its packet counts by cluster."""
        found = self._counters(sender)
        return found.get("sequence", 0), by_cluster(found)

    def since_ms(self, sender: int) -> dict[ClusterKey, int]:
        """Return when a sender's first packet to each cluster was appended, Redis ms."""
        return firsts(self._counters(sender))

    def _counters(self, sender: int) -> dict[str, int]:
        with of_sender(self._settings, f"read the counters of sender {sender}", sender):
            return decoded_numbers(self._client.hgetall(keys.counters(sender)))

    def wrong_keys(self, sender: int) -> list[str]:
        """Return a description of each bad value in the keys of a sender's deliveries."""
        hashes = [of(sender) for of in _HASHES]
        others = keys.log(sender), keys.closing(sender), keys.lease(sender)
        with translated(self._settings, f"look at the keys of sender {sender}"):
            wrong = {
                bad.key: bad.described for bad in wrong_types(self._client, [*hashes, *others])
            }
            found = list(wrong.values())
            for key in hashes:
                fields: Any = {} if key in wrong else self._client.hgetall(key)
                found += [
                    f"field {field!r:.60} of {key} is {value!r:.40}, not a number"
                    for field, value in fields.items()
                    if not re.fullmatch(rb"-?\d{1,18}", value)
                ][:3]
        return found

    def _run_for(self, sender: int, what: str, name: str, names: list[str], *arguments: Any) -> Any:
        """Run a script about one sender; ``what`` names the action in the message of an error."""
        with of_sender(self._settings, f"{what} of sender {sender}", sender):
            return script(name)(self._client, names, *arguments)
