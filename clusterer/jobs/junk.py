"""Junk jobs: those that no worker runs. Workers move junk jobs to a bounded list that people read.

The newest `MOST_ENTRIES` are listed for a day, one line each: when (ms), the job's id, why. Their
hashes stay as long, so that a job that was meant for another application can be enqueued there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import redis

from clusterer.jobs import keys
from clusterer.jobs.readable import MOST_BYTES, MOST_FIELDS, shown_id

MOST_ENTRIES = 1000
KEPT_S = 86400

_JOB = b"rq:job:"


@dataclass(frozen=True, slots=True)
class JunkEntry:
    """One member of a queue or registry that no worker runs."""

    member: bytes
    """As it stands in the list or sorted set."""
    job_id: bytes
    why: str
    own: bool = False
    """Whether the job's hash says that it belongs to the queue."""
    missing: bool = False
    """Whether there is no hash."""

    @property
    def line(self) -> str:
        return f"{shown_id(self.job_id)} {self.why}"


@dataclass(frozen=True, slots=True)
class JunkReport:
    """The junk jobs of a queue lately; times in UNIX seconds."""

    queue: str
    count: int
    since: float
    last: float
    example: str
    """Id and fault of the latest junk job; empty if not known."""


class JunkStore:
    """Reads jobs without trusting them, and takes junk out of one queue."""

    def __init__(self, queue: str, connection: redis.Redis) -> None:
        self._queue = queue
        self._connection = connection
        self._read = connection.register_script(_lua("read_jobs"))
        self._discard = connection.register_script(_lua("discard"))

    def read(self, job_ids: Iterable[bytes]) -> list[list[bytes]]:
        """Return what ``read_jobs.lua`` says of each job; one round trip."""
        jobs = [_JOB + job_id for job_id in job_ids]
        found: list[list[bytes]] = self._read(jobs, [MOST_FIELDS, MOST_BYTES]) if jobs else []
        return found

    def discard(self, source: str, entries: Sequence[JunkEntry]) -> int:
        """Move ``entries`` from ``source``, a list or sorted set, to the junk list.

        Returns how many were there still: several workers may see the same junk.
        """
        touched = [source, keys.junk(self._queue), keys.junk_totals(self._queue)]
        touched += {(_JOB + entry.job_id).decode() for entry in entries if entry.own}
        pairs = [word for entry in entries for word in (entry.member, entry.line)]
        moved, *over = self._discard(touched, [MOST_ENTRIES, KEPT_S, *pairs])
        if over:
            self._forget(over)
        return int(moved)

    def _forget(self, lines: Iterable[bytes]) -> None:
        """Delete the hashes of jobs that fell off the list, unless another queue has them."""
        words = [line.split(b" ", 2)[1:2] for line in lines]
        jobs = [_JOB + word[0].strip(b"'") for word in words if word]
        with self._connection.pipeline(transaction=False) as pipe:
            for key in jobs:
                pipe.hget(key, "origin")
                pipe.ttl(key)
            replies = pipe.execute(raise_on_error=False)
        ours = self._queue.encode()
        # Only a junk job has a TTL while it waits: one that was made again since has none.
        gone = [
            key
            for key, origin, ttl_s in zip(jobs, replies[::2], replies[1::2], strict=True)
            if origin == ours and ttl_s > 0
        ]
        if gone:
            self._connection.unlink(*gone)

    def report(self) -> JunkReport | None:
        """Return the report of the queue; None if there was no junk lately."""
        with self._connection.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.junk_totals(self._queue))
            pipe.lindex(keys.junk(self._queue), 0)
            totals, newest = pipe.execute(raise_on_error=False)
        if not isinstance(totals, dict) or not totals:
            return None
        count, since, last = (_number(totals, name) for name in (b"count", b"since_ms", b"last_ms"))
        line = newest.decode("utf-8", "replace") if isinstance(newest, bytes) else ""
        return JunkReport(
            self._queue, count, since / 1000, last / 1000, line.partition(" ")[2][:200]
        )


def _number(totals: dict[Any, Any], name: bytes) -> int:
    raw = totals.get(name, b"")
    return int(raw) if re.fullmatch(rb"[0-9]{1,14}", raw) else 0


@cache
def _lua(name: str) -> str:
    return files("clusterer.jobs").joinpath("lua", f"{name}.lua").read_text("utf-8")
