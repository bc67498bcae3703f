"""Samples of the traffic of each node, for charts: a stream of bounded length per node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clusterer.membership.views import ClusterKey
from clusterer.store import keys
from clusterer.store.badvalues import bad, batches, number, read_all, replaced, text
from clusterer.store.client import Store, translated
from clusterer.store.scripts import Call, run_each

LENGTH = 360
"""Samples kept of each node: those of an hour, at one every ten seconds."""

_NODES_AT_ONCE = 500
"""Nodes per script call: Redis serves no other client meanwhile."""

_READ_AT_ONCE = 100
"""Histories in memory at once."""


class Sample(NamedTuple):
    """Packets of all senders to a node, and of the node to all others, since their logs began."""

    sent_to: int
    """Packets delivered to the node."""
    sent_by: int
    """Packets delivered from the node to others."""
    skipped: int
    """Packets to the node that were not sent, because the path was not up."""
    lost: int
    """Packets to the node that left a log unsent."""
    backlog: int
    """Packets that the node has not received."""

    def __add__(self, other: object) -> Sample:
        """Return the sum of two samples."""
        if not isinstance(other, Sample):
            return NotImplemented
        return Sample(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Recorded(NamedTuple):
    """A sample, and the time at which it was taken."""

    at: float
    """Redis TIME, UNIX seconds."""
    sample: Sample


class HistoryStore(Store):
    """The samples of all nodes of one Redis. Every method raises `StateUnavailable`."""

    def record(self, key: ClusterKey, samples: Mapping[int, Sample], ttl_s: float) -> None:
        """Append a sample of each node of a cluster (by machine_id) that exists.

        ``ttl_s``: seconds after which Redis deletes a history without a new sample.
        """
        head = [LENGTH, int(ttl_s * 1000), len(Sample._fields), *Sample._fields]
        with translated(self._settings, f"record the traffic of cluster {key}"):
            for batch in batches(samples.items(), _NODES_AT_ONCE):
                names = [keys.nodes(*key), *(keys.history(*key, i) for i, _ in batch)]
                values = [value for i, sample in batch for value in (i, *sample)]
                call = Call("record_history", names, (*head, *values))
                replaced(run_each(self._client, [call])[0] or ())

    def read(
        self, key: ClusterKey, machine_ids: Sequence[int], last: int = LENGTH
    ) -> dict[int, list[Recorded]]:
        """Return the ``last`` samples of nodes by machine_id, oldest first; none where none is."""
        found: dict[int, list[Recorded]] = {}
        with translated(self._settings, f"read the traffic of cluster {key}"):
            for some in batches(machine_ids, _READ_AT_ONCE):
                names = [keys.history(*key, i) for i in some]
                replies = read_all(self._client, [("xrevrange", n, "+", "-", last) for n in names])
                for machine_id, name, entries in zip(some, names, replies, strict=True):
                    found[machine_id] = _decoded(name, entries)
        return found


_NAMES = [name.encode() for name in Sample._fields]


def _decoded(key: str, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Recorded]:
    found = []
    for entry_id, fields in reversed(entries):
        values = [_value(key, entry_id, name, fields.get(name)) for name in _NAMES]
        if -1 not in values:
            found.append(Recorded(_at(entry_id), Sample(*values)))
    return found


def _value(key: str, entry_id: bytes, name: bytes, value: Any) -> int:
    place = f"entry {text(entry_id)}, field {text(name)}"
    if value is None:
        bad(key, place, "", "a whole number from 0")
    return number(key, place, value, -1)


def _at(entry_id: bytes) -> float:
    return int(entry_id.partition(b"-")[0]) / 1000
