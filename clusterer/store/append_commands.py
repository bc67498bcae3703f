"""The commands of an append as bytes: calls of append.lua, and WAIT for the replicas.

Every packet needs one, so most parts are made before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from clusterer.errors import StateUnavailable
from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.channel import pack
from clusterer.store.format import FORMAT
from clusterer.store.scripts import Script

MAX_ENTRY = 16 * 1024
"""Bytes of frames that one log entry holds (a single frame may be larger). Entries cost Redis and
the worker more than packets do; a read of many logs is bounded by entries, not by bytes."""

MAX_CALL = 512 * 1024
"""Bytes of frames that one call of the script stores: Redis serves no other client meanwhile."""


WAIT_MS = 700
"""Time that Redis waits for its replicas: less than a client waits for Redis."""


class AppendCommands:
    """Makes the commands of one sender; makes the part before the packets once per cluster."""

    def __init__(self, settings: Settings, sender: int, append: Script) -> None:
        queue = settings.delivery_queue
        self._sha = append.sha
        self._limit = str(settings.log_max_packets)
        self._keys = (keys.log(sender), keys.counters(sender), keys.lease(sender))
        self._more_keys = (keys.pending(queue), keys.enqueued(queue), keys.ring(queue), keys.QUEUES)
        self.names = (*self._keys, *self._more_keys)
        """All keys that an append touches."""
        self._more_arguments = (str(sender), queue)
        self._heads: dict[tuple[ClusterKey, bool], tuple[int, bytes]] = {}

    def pack(self, key: ClusterKey, frames: Sequence[bytes], *, leased: bool) -> bytes:
        """Return the command that appends ``frames`` for one cluster.

        With ``leased`` the command does nothing unless a worker has leased the log.
        """
        head = self._heads.get((key, leased)) or self._head(key, leased=leased)
        if len(frames) == 1:
            frame = frames[0]
            return b"*%d\r\n%b$1\r\n1\r\n$%d\r\n%b\r\n" % (head[0] + 2, head[1], len(frame), frame)
        entries = list(_parts(frames, MAX_ENTRY))
        parts = [b"*%d\r\n%b" % (head[0] + 2 * len(entries), head[1])]
        for entry in entries:
            count = b"%d" % len(entry)
            parts.append(b"$%d\r\n%b\r\n$%d\r\n" % (len(count), count, sum(map(len, entry))))
            parts += entry
            parts.append(b"\r\n")
        return b"".join(parts)

    def _head(self, key: ClusterKey, *, leased: bool) -> tuple[int, bytes]:
        """Return the parts before the packets, with their number."""
        names = self._keys if leased else self._keys + self._more_keys
        more = () if leased else self._more_arguments
        arguments = (str(key.cluster_id), key.protocol, self._limit, str(FORMAT), *more)
        parts = ("EVALSHA", self._sha, str(len(names)), *names, *arguments)
        packed = pack(*parts)
        head = self._heads[key, leased] = len(parts), packed[packed.index(b"\r\n") + 2 :]
        return head


def sub_batches(frames: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split frames, in order, into the sub-batches that one call each may store."""
    if len(frames) == 1:
        return iter((frames,))
    return _parts(frames, MAX_CALL)


def _parts(frames: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    """Split frames into parts of at most ``most`` bytes; a larger frame is alone."""
    ends = list(accumulate(map(len, frames)))
    first = before = 0
    while first < len(ends):
        end = max(bisect_right(ends, before + most, first), first + 1)
        yield frames[first:end]
        first, before = end, ends[end - 1]


class Replicas:
    """The number of replicas that must have each write, and of those that had the last write."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.command = pack("WAIT", str(wanted), str(WAIT_MS))
        """The command that follows a write on the same connection."""
        self.got = wanted
        """Reply to it."""

    def shortage(self) -> StateUnavailable | None:
        """Return the error that fewer replicas have the last write than must; None if enough do."""
        if self.got >= self._wanted:
            return None
        return StateUnavailable(
            f"{self.got} of {self._wanted} replicas have the packet after {WAIT_MS / 1000:g} s: "
            "the packet may have been stored; look at the replicas, or lower wait_replicas"
        )
