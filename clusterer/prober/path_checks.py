"""Checks the broken paths of a host's own senders, and deletes void records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from typing import NamedTuple
from zlib import crc32

from clusterer.membership import Condition, Event, Node, State
from clusterer.membership.paths import Path, due_ms, is_void, observed
from clusterer.membership.views import node_of
from clusterer.prober.checks import Done, Found
from clusterer.prober.context import Context
from clusterer.store.paths import Observation, Reply

TURN_S = 0.25
"""Between two looks at the records: what checks found is written in one call."""

PROBING_S, DISABLED_S = 0.5, 0.75
"""Longest time for the check of a path that is probing, or disabled."""

_AT_ONCE = 50
"""Failed checks in one turn: each may open a suspicion."""


class _Target(NamedTuple):
    """What one check serves: the paths of all senders with one address to one node."""

    node: Node
    source: str | None
    window_s: float


@dataclass(frozen=True, slots=True)
class _SharedCheck:
    """A check that waits or runs."""

    since_ms: int
    """Time at which the check began, or earlier: the check says nothing about later failures."""
    done: list[Done]


@dataclass(frozen=True, slots=True)
class _Result:
    """Result of a check of a path whose record was ``before``."""

    node: Node
    before: Path
    reached: bool
    reason: str


class PathChecks:
    """The checks of the broken paths on one prober's host. For one thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._counters: dict[int, int] = {}
        """Of each own sender's records, as they were read."""
        self._records: dict[int, Mapping[str, Path]] = {}
        self._stale: set[int] = set()
        self._checking: set[tuple[int, str]] = set()
        self._shared: dict[_Target, _SharedCheck] = {}
        self._results: dict[int, dict[str, _Result]] = {}
        self.next_at = inf
        """When `turn` has something to do (monotonic seconds)."""

    def notice(self, counters: Mapping[int, int]) -> None:
        """Compare the senders' counters with those that were read."""
        own = self._context.viewpoint.machine_ids
        for sender in own | self._records.keys():
            if sender not in own or sender not in counters:
                self._records.pop(sender, None)
                self._counters.pop(sender, None)
            elif counters[sender] != self._counters.get(sender):
                self._stale.add(sender)
        self.next_at = min(self.next_at, 0.0) if self._stale or self._records else inf

    def forget(self) -> None:
        """Read all records again: Redis was away, or another process was the prober."""
        self._counters.clear()
        self._results.clear()

    def turn(self) -> None:
        """Write what checks found, delete void records, begin the checks that are due."""
        if monotonic() < self.next_at:
            return
        self.next_at = monotonic() + TURN_S
        self._write()
        if self._stale:
            self._read()
        for sender, records in self._records.items():
            self._look_after(sender, records)
        if not (self._records or self._stale or self._results):
            self.next_at = inf

    def _read(self) -> None:
        stale = sorted(self._stale)
        for sender, records in self._context.paths.all_records(stale).items():
            self._records[sender] = dict(records)
            self._counters[sender] = records.counter
        self._stale.clear()

    def _look_after(self, sender: int, records: Mapping[str, Path]) -> None:
        context = self._context
        void = self._void(records)
        if void:  # or of a later epoch than the node as it was read last
            context.refresh()
            void = self._void(records)
        for destination, path in records.items():
            node = node_of(destination, context.viewpoint.views)
            if node is None or destination in void or node.state is not State.UP:
                continue
            found = self._results.get(sender, {})
            if (sender, destination) not in self._checking and destination not in found:
                self._check_if_due(sender, destination, path, node)
        if void:
            context.paths.delete(sender, void)
            self._stale.add(sender)

    def _void(self, records: Mapping[str, Path]) -> dict[str, Path]:
        now_ms, views = self._context.now_ms, self._context.viewpoint.views
        return {
            destination: path
            for destination, path in records.items()
            if is_void(path, node_of(destination, views), now_ms)
        }

    def _check_if_due(self, sender: int, destination: str, path: Path, node: Node) -> None:
        context = self._context
        spread = crc32(f"{sender}/{destination}/{path.last_ms}".encode()) % 1000 / 1000
        if context.now_ms < due_ms(node, path, context.settings.probe_interval, spread):
            return
        if path.state is State.UP:
            self._results.setdefault(sender, {})[destination] = _Result(node, path, True, "")
            return
        disabled = path.condition(node) is Condition.DISABLED
        row = context.viewpoint.node(node.cluster, sender)
        source = row.host if row is not None else context.viewpoint.source(node)
        target = _Target(node, source, DISABLED_S if disabled else PROBING_S)
        done = partial(self._found, sender, destination, node, path)
        self._checking.add((sender, destination))
        running = self._shared.get(target)
        if running is not None and path.last_ms < running.since_ms:
            running.done.append(done)
        else:
            self._start(target, _SharedCheck(context.now_ms, [done]))

    def _start(self, target: _Target, shared: _SharedCheck) -> None:
        self._shared[target] = shared
        self._context.checks.start(*target, partial(self._conclude, target, shared))

    def _conclude(self, target: _Target, shared: _SharedCheck, found: Found) -> None:
        if self._shared.get(target) is shared:
            del self._shared[target]
        if found.reached is False and self._context.viewpoint.has_lost(target.source):
            found = Found(None)
        for done in shared.done:
            done(found)

    def _found(self, sender: int, destination: str, node: Node, path: Path, found: Found) -> None:
        self._checking.discard((sender, destination))
        if found.reached is not None:
            result = _Result(node, path, found.reached, found.reason)
            self._results.setdefault(sender, {})[destination] = result

    def _write(self) -> None:
        """Write what checks found; of more failed checks than `_AT_ONCE` some in later turns."""
        results, self._results = self._results, {}
        left = _AT_ONCE
        for sender, by_destination in results.items():
            self._stale.add(sender)
            reached = [result for result in by_destination.values() if result.reached]
            self._write_reached(sender, reached)
            failed = [(to, result) for to, result in by_destination.items() if not result.reached]
            now, later = failed[:left], failed[left:]
            left -= len(now)
            if now:
                self._write_failed(sender, [result for _, result in now])
            if later:
                self._results[sender] = dict(later)

    def _write_reached(self, sender: int, results: Iterable[_Result]) -> None:
        context = self._context
        changes = []
        for result in results:
            up = result.before.state is State.UP
            event = Event.DURATION_ELAPSED if up else Event.PROBE_SUCCEEDED
            after = observed(result.node, result.before, event, context.now_ms)
            if after != result.before:
                changes.append((result.node, result.before, after, event.value))
        context.paths.change(sender, changes, by=context.by)

    def _write_failed(self, sender: int, results: Sequence[_Result]) -> None:
        """Write failed checks as observations: each may open a suspicion of its node."""
        context = self._context
        seen = [
            Observation(
                result.node,
                result.before,
                Event.PROBE_FAILED,
                result.reason,
                began_ms=result.before.last_ms,
                by=context.by,
            )
            for result in results
        ]
        for each, (reply, _) in zip(seen, context.paths.observe(sender, seen), strict=True):
            if reply is Reply.ASK:
                context.suspect(each.node, f"probe failed: {each.reason}", (sender, each))
