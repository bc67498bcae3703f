"""Packets that wait for their append to a sender's log: of callers, of tasks, and posted ones.

The order of the queue is the order of the log. An entry belongs to one of three kinds:

- A *caller* waits for its entry, and sends the queue itself if no other thread does.
- A *task* does not block: the queue tells it the result. A background thread sends.
- *Posted* packets have no waiter. They stay queued while Redis is away, within a bound.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterer.errors import BufferFull, ClustererError
from clusterer.membership.views import ClusterKey
from clusterer.runtime import forks
from clusterer.store.append_commands import MAX_CALL

ENTRY_BYTES = 64 * 1024
"""Bytes of posted frames in one entry: the overflow of the buffer looks at one entry at a time."""

Tell = Callable[[list[Any], ClustererError | None], None]
"""Gets an entry's waiters and the error, None after success. The function must not block or
raise, and must accept a second call: a thread that was interrupted sends an entry again."""


@dataclass(eq=False, slots=True)
class Entry:
    """Frames of one cluster that the log does not have yet."""

    key: ClusterKey
    frames: list[bytes]
    posted: bool = False
    size: int = 0
    is_known: bool = True
    """Whether the cluster exists, as far as the caller knows."""
    taken: bool = False
    """Whether a round sends it; no frame is added or dropped then."""
    done: bool = False
    error: ClustererError | None = None
    waiters: list[Any] = field(default_factory=list)
    tell: Tell | None = None

    def __post_init__(self) -> None:
        self.size = sum(map(len, self.frames))


@dataclass(slots=True)
class PostCounts:
    """Numbers of posted packets by their result, since the start of the process."""

    posted: int = 0
    """Packets that `post` took."""
    rejected: int = 0
    """Packets that `post` did not take: the buffer was full."""
    dropped: int = 0
    """Packets dropped to make room for later ones, or left when the instance closed."""
    refused: int = 0
    """Packets that Redis refused for good, such as those for an unknown cluster."""


class AppendQueue:
    """A queue in memory; safe to share between threads. A forked child begins with an empty one."""

    def __init__(self, most_bytes: int, *, drop_oldest: bool) -> None:
        """``most_bytes``: bound of the posted frames."""
        self._most_bytes = most_bytes
        self._drop_oldest = drop_oldest
        self._lock = forks.lock()
        self.renew()

    def renew(self) -> None:
        """Forget all entries: they are the parent's."""
        self._entries: deque[Entry] = deque()
        self._open: Entry | None = None  # the last entry, while packets may join it
        self._bytes = 0
        self.counts = PostCounts()
        self.background_work = threading.Event()
        """Set while there are entries that no caller waits for."""
        self.hurry = threading.Event()
        """Set when such entries are not to wait for more packets."""

    def __len__(self) -> int:
        """Return the number of entries, those that a round sends included."""
        return len(self._entries)

    @property
    def posted_bytes(self) -> int:
        """Bytes of posted frames that the log does not have yet."""
        return self._bytes

    # -- adding ---------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Add the entry of a caller, which waits until it is done."""
        with self._lock:
            self._open = None
            self._entries.append(entry)

    def post(self, key: ClusterKey, frame: bytes, *, is_known: bool) -> None:
        """Add a packet without a waiter.

        Raises `BufferFull`, or drops the oldest packets to make room.
        """
        size = len(frame)
        with self._lock:
            if self._bytes + size > self._most_bytes:
                self._make_room(size)
            entry = self._open
            if (
                entry is None
                or entry.key is not key
                or not entry.posted
                or entry.size + size > ENTRY_BYTES
            ):
                entry = self._begin(Entry(key, [], posted=True))
                entry.is_known = is_known
            self.counts.posted += 1
            self._bytes += size
            entry.size += size
            entry.frames.append(frame)

    def submit(self, key: ClusterKey, frames: Sequence[bytes], waiter: object, tell: Tell) -> None:
        """Add frames, all or none, of a task; ``tell`` gets the ``waiter`` when they are done."""
        with self._lock:
            entry = self._open
            size = sum(map(len, frames))
            joins = entry is not None and entry.key is key and entry.tell is tell
            if entry is None or not joins or entry.size + size > MAX_CALL:
                entry = self._begin(Entry(key, []))
                entry.tell = tell
                self.hurry.set()
            entry.size += size
            entry.waiters.append(waiter)
            entry.frames += frames

    def when_sent(self, call: Callable[[], object]) -> bool:
        """Have ``call`` called when the log has all packets that were posted until now.

        Returns False, and calls nothing, if no posted packet waits.
        """
        with self._lock:
            last = next((e for e in reversed(self._entries) if e.posted and not e.done), None)
            if last is None:
                return False
            self._open = None
            last.tell = _call_each
            last.waiters.append(call)
            self.hurry.set()
            return True

    def forget(self, call: Callable[[], object]) -> None:
        """Call ``call`` no more: see `when_sent`."""
        with self._lock:
            for entry in self._entries:
                if entry.tell is _call_each and call in entry.waiters:
                    entry.waiters.remove(call)

    def end(self, error: ClustererError) -> int:
        """Drop all posted packets, and give tasks that still wait the ``error``.

        Returns, and counts, how many posted packets were dropped.
        """
        with self._lock:
            left = [e for e in self._entries if _is_in_background(e)]
            dropped = sum(len(entry.frames) for entry in left if entry.posted)
            for entry in left:
                self._finish(entry, error)
                self._entries.remove(entry)
            self._open = None
            self.counts.dropped += dropped
        return dropped

    def _begin(self, entry: Entry) -> Entry:
        """Add an entry that a background thread is to send, and that more packets may join."""
        if not self.background_work.is_set():
            self.background_work.set()
        if self._bytes >= MAX_CALL > self._bytes - ENTRY_BYTES:
            self.hurry.set()
        self._entries.append(entry)
        self._open = entry
        return entry

    def _make_room(self, size: int) -> None:
        if not self._drop_oldest:
            self.counts.rejected += 1
            raise BufferFull(
                f"the post buffer is full: {self._bytes:,} bytes of posted packets wait for Redis; "
                "post again later, or raise post_buffer"
            )
        for entry in list(self._entries):
            if not entry.posted or entry.taken or entry.done:
                continue
            while entry.frames and self._bytes + size > self._most_bytes:
                gone = len(entry.frames.pop(0))
                entry.size -= gone
                self._bytes -= gone
                self.counts.dropped += 1
            if entry.frames:
                return
            self._finish(entry, None)
            self._entries.remove(entry)
            if self._open is entry:
                self._open = None

    # -- sending; only for the thread that holds the log's lock ---------------------------------

    def take(self) -> list[Entry]:
        """Return the entries of one round trip, oldest first: at most a sub-batch of bytes."""
        found: list[Entry] = []
        size = 0
        with self._lock:
            for entry in self._entries:
                if not entry.frames:  # the thread that added it was interrupted
                    self._finish(entry, None)
                if entry.done:
                    continue
                if found and size + entry.size > MAX_CALL:
                    break
                size += entry.size
                entry.taken = True
                found.append(entry)
            if self._open is not None and self._open.taken:
                self._open = None
        return found

    def finish(self, entries: Sequence[Entry], error: ClustererError | None = None) -> int:
        """Mark entries as done: stored, or with an ``error`` refused for good.

        Returns the number of posted packets that were refused.
        """
        with self._lock:
            for entry in entries:
                self._finish(entry, error)
            while self._entries and self._entries[0].done:
                self._entries.popleft()
            if not self._entries:
                self._bytes = 0  # an interrupted `post` may have counted what it did not add
            refused = sum(len(e.frames) for e in entries if e.posted) if error is not None else 0
            self.counts.refused += refused
        return refused

    def keep(self, error: ClustererError) -> None:
        """Keep the posted packets after a round that failed; all that wait get the ``error``."""
        with self._lock:
            for entry in self._entries:
                entry.taken = False
            failed = [e for e in self._entries if not e.posted and not e.done]
        self.finish(failed, error)
        with self._lock:
            self._entries = deque(e for e in self._entries if not e.done)
            self._open = None

    def leave(self, entry: Entry) -> None:
        """Mark a caller's entry as done, also after an interrupt: no other thread sends it then."""
        entry.done = True

    def has_tasks(self) -> bool:
        """Return whether a task waits for an entry."""
        with self._lock:
            return any(not e.posted and e.tell is not None for e in self._entries)

    def may_gather(self) -> bool:
        """Return whether the entries may wait for more packets: no task or caller waits for one."""
        with self._lock:
            if self._bytes >= MAX_CALL:
                return False
            return all(entry.posted and entry.tell is None for entry in self._entries)

    def has_background_work(self) -> bool:
        """Return whether there are entries that no caller waits for; clears the event if not."""
        with self._lock:
            found = any(map(_is_in_background, self._entries))
            if not found:
                self.background_work.clear()
        return found

    def _finish(self, entry: Entry, error: ClustererError | None) -> None:
        if entry.done:
            return
        entry.error = error
        if entry.tell is not None:
            entry.tell(entry.waiters, error)
        if entry.posted:
            self._bytes -= entry.size
        entry.done = True  # last: an interrupted round must be repeated, not forgotten


def _is_in_background(entry: Entry) -> bool:
    return not entry.done and (entry.posted or entry.tell is not None)


def _call_each(waiters: list[Any], error: ClustererError | None) -> None:
    for call in waiters:
        call()
