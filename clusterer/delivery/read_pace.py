"""How often the worker reads the logs, and how much at once."""

from __future__ import annotations

FIRST_READ, MAX_READ = 64, 512
"""Entries per read: at first, and at most."""

MIN_SHARE = 32
"""Entries of each log in a read of many: enough for one that is busy among many that are not."""

READ_BYTES = 1024 * 1024
"""Bytes that a read should not exceed; the number of entries follows."""

PACE_S = 0.002
"""Pause before the next read while small reads follow each other fast: it collects packets that
else would cost a round trip and a system call per node each. Sparse traffic never waits."""

PACE_PER_LOG_S = 0.00002
"""The same for each log in the read: a read of many logs costs Redis and the worker so much more.
A thousand senders wait 20 ms."""

PACED_BELOW_S = 0.004
PACED_BELOW_ENTRIES = 100


class Pace:
    """How often logs are read, by what the last reads have brought. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.ask_at = 0.0
        """When to read next."""
        self._read_at = 0.0

    def note_read(self, entries: int, now: float, logs: int = 0) -> None:
        """Choose when to read next, after ``entries`` came at ``now`` from a read of ``logs``."""
        pause = PACE_S + PACE_PER_LOG_S * logs
        within = PACED_BELOW_S + 2 * PACE_PER_LOG_S * logs
        fast = now - self._read_at < within and 0 < entries < PACED_BELOW_ENTRIES
        self.ask_at = now + pause if fast else now
        self._read_at = now


class ReadSize:
    """Keeps reads bounded in bytes, whatever the entries' size."""

    def __init__(self) -> None:
        self.count = FIRST_READ
        """Entries in the next read."""

    def per_log(self, logs: int) -> int:
        """Return how many entries the next read may bring of each of so many logs."""
        return max(self.count // max(logs, 1), min(self.count, MIN_SHARE))

    def note(self, size: int) -> None:
        """Choose `count`, after a read that brought ``size`` bytes."""
        if size > READ_BYTES:
            self.count = max(self.count // 2, 8)
        elif 0 < size < READ_BYTES // 4:
            self.count = min(self.count * 2, MAX_READ)
