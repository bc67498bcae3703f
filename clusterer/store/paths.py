"""Path records in Redis: which nodes each sender does not reach. Changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from clusterer.membership import FAILURES, Condition, Event, Node, State
from clusterer.membership.paths import Path, is_void, observed
from clusterer.membership.suspicions import VOID_MS
from clusterer.store import keys
from clusterer.store.badvalues import Command, bad, batches, flat, ids, number, replaced, text
from clusterer.store.client import Store, ms_of, translated
from clusterer.store.node_change import EVENTS_CAP, Cause, audit_fields

SCANNED = 1000
"""Keys that one call of `PathStore.scan` looks at: about a millisecond of Redis's time."""

AT_ONCE = 50
"""Records that one script call changes: some 2 ms of Redis's time."""


class Reply(Enum):
    """The next step for the verdict of a node after an observation."""

    CHANGED = -1
    """The node or the record changed since it was read: the observation is dropped."""
    CONFIRMED = 1
    """A host reached the node since the attempt began: nothing."""
    OPEN = 2
    """A suspicion is open already: nothing."""
    ASK = 3
    """A suspicion is to be opened, see `SuspicionStore.open`."""
    NOT_UP = 4
    """The verdict is not up already: nothing."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Result of an attempt of a sender to reach a node."""

    node: Node
    before: Path | None
    """The record as it was read."""
    event: Event
    reason: str
    """Why the attempt failed, for people."""
    began_ms: int
    """Redis ms at which the attempt began; of a check that failed, time of the failure before it:
    nothing is asked if a host has reached the node since."""
    by: str
    """For the path events, for example ``delivery of sender 1``."""


class Records(dict[str, Path]):
    """The path records of one sender, by `Node.destination`."""

    def __init__(self, paths: Mapping[str, Path], counter: int, now_ms: int) -> None:
        super().__init__(paths)
        self.counter = counter
        """Changes with each change of a record; 0 for a sender without records."""
        self.now_ms = now_ms
        """Redis ms at which they were read."""


class PathStore(Store):
    """Access to the path records of all senders. Safe to share between threads."""

    _scanned = 0
    """Cursor of `scan`."""

    # -- reading ------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return Redis TIME in ms."""
        (time,) = self._read("read the time", ("time",))
        return ms_of(time)

    def counters(self) -> dict[int, int]:
        """Return the senders with records, each with a number that changes with its records."""
        (found,) = self._read("look for changed paths", ("hgetall", keys.PATHS))
        return counters_of(found)

    def counter(self, sender: int) -> int:
        """Return the number that changes with the records of a sender; 0 if it has none."""
        what = f"look for changed paths of sender {sender}"
        (found,) = self._read(what, ("hget", keys.PATHS, sender))
        return number(keys.PATHS, f"field {sender}", found)

    def records(self, sender: int) -> Records:
        """Return the records of a sender. Those that cannot be used are reported and left out."""
        return self.all_records([sender])[sender]

    def all_records(self, senders: Sequence[int]) -> dict[int, Records]:
        """Return the records of senders, read in one round trip."""
        commands: list[Command] = [("hgetall", keys.paths(sender)) for sender in senders]
        # The counters come first: records changed after them are seen again next time.
        time, counted, *hashes = self._read(
            "read paths", ("time",), ("hgetall", keys.PATHS), *commands
        )
        counters, now_ms = counters_of(counted), ms_of(time)
        return {
            sender: Records(records_of(sender, data), counters.get(sender, 0), now_ms)
            for sender, data in zip(senders, hashes, strict=True)
        }

    def scan(self) -> list[int]:
        """Return the senders with records among the next `SCANNED` keys of Redis.

        After the last key the scan begins again: the calls of a process find each sender with
        records, also a sender that `counters` does not name because Redis has lost that key.
        """
        pattern = keys.paths(0)[:-1]
        with translated(self._settings, "look for path records"):
            self._scanned, found = self._client.scan(self._scanned, f"{pattern}*", SCANNED, "hash")
        return ids(f"{pattern}*", [text(name).removeprefix(pattern) for name in found])

    def has_record_of(self, node: Node) -> bool:
        """Return whether any sender has a path record of ``node``."""
        wanted = [("hget", keys.paths(sender), node.destination) for sender in self.counters()]
        return any(self._read("read paths", *wanted))

    # -- changing -----------------------------------------------------------------------------

    def observe(self, sender: int, seen: Sequence[Observation]) -> list[tuple[Reply, Path | None]]:
        """Record what attempts of a sender, and checks of its host, showed.

        Returns for each what is to be done about the verdict, and the record as it is now. Where
        the node has another address or epoch, or the record is not as it was read, nothing is
        written.
        """
        now_ms = self.now_ms()
        replies: list[tuple[Reply, Path | None]] = []
        for some in batches(seen, AT_ONCE):
            replies += self._observe(sender, some, now_ms)
        return replies

    def _observe(
        self, sender: int, seen: Sequence[Observation], now_ms: int
    ) -> Iterator[tuple[Reply, Path | None]]:
        names = [keys.PATHS, keys.paths(sender)]
        arguments: list[Any] = [sender, VOID_MS, EVENTS_CAP]
        for each in seen:
            node, key = each.node, each.node.cluster
            after = observed(node, each.before, each.event, now_ms, each.reason)
            event = event_of(sender, each, now_ms)
            names += [keys.node(*key, node.machine_id), keys.suspicions(*key)]
            names += [keys.confirmed(*key), keys.path_events(key.cluster_id)]
            arguments += [node.destination, node.machine_id, node.generation, node.epoch]
            arguments += [_text(each.before), _text(after)]
            arguments += [each.began_ms if each.event in FAILURES else "", len(event), *event]
        what = f"note paths of sender {sender}"
        wrong, *replies = self._run(what, "observe_paths", names, *arguments)
        replaced(wrong)
        for each, (code, record) in zip(seen, replies, strict=True):
            path = _parsed(sender, each.node.destination, record) if record else None
            if record and path is None:  # no observation compares equal to it
                self._write(sender, [_Write(each.node.destination, record)])
            yield Reply(code), path

    def change(
        self,
        sender: int,
        changes: Sequence[tuple[Node, Path, Path | None, str]],
        *,
        by: str = "prober",
    ) -> list[bool]:
        """Replace records that are still as they were read; None deletes one.

        A change is the node, the record as it was read, the record after it, and what happened,
        for the path events: a change that leaves the path's condition as it is makes none.
        Returns for each change whether it was made.
        """
        writes = []
        for node, before, after, what in changes:
            reason = "" if after is None or after.state is State.UP else after.reason
            event = _event(sender, node, (before, after), what, Cause(by, reason))
            writes.append(_Write(node.destination, before, after, node.cluster_id, event))
        return self._write(sender, writes)

    def delete(self, sender: int, fields: Mapping[str, Path]) -> None:
        """Delete records that are void, by field, if they are still as they were read."""
        self._write(sender, [_Write(field, path) for field, path in fields.items()])

    def forget(self, sender: int, fields: Iterable[str]) -> None:
        """Delete the records of destinations that have left their cluster."""
        self._write(sender, [_Write(field) for field in fields])

    def _write(self, sender: int, writes: Sequence[_Write]) -> list[bool]:
        done: list[bool] = []
        for some in batches(writes, AT_ONCE):
            names = [keys.PATHS, keys.paths(sender)]
            arguments: list[Any] = [sender, EVENTS_CAP]
            for write in some:
                names.append(keys.path_events(write.cluster_id))
                arguments += [write.field, _text(write.before), _text(write.after)]
                arguments += [len(write.event), *write.event]
            what = f"change paths of sender {sender}"
            wrong, *replies = self._run(what, "change_paths", names, *arguments)
            replaced(wrong)
            done += map(bool, replies)
        return done


@dataclass(frozen=True, slots=True)
class _Write:
    """Change of one record by a script."""

    field: str
    before: Path | bytes | None = None
    """Record as it was read; None: as it is in Redis."""
    after: Path | None = None
    cluster_id: int = 0
    event: Sequence[str] = ()


def counters_of(data: Mapping[bytes, bytes]) -> dict[int, int]:
    """Return the counters in the reply to HGETALL of `keys.PATHS`."""
    return {
        sender: number(keys.PATHS, f"field {sender}", data[b"%d" % sender])
        for sender in ids(keys.PATHS, data)
    }


def records_of(sender: int, data: Mapping[bytes, bytes]) -> dict[str, Path]:
    """Return what `keys.paths` of a sender holds; what cannot be used is reported and left out."""
    found = {}
    for name, value in data.items():
        field = text(name)
        if field.encode() != name:  # a change would name another field
            bad(keys.paths(sender), f"field {field}", value, "cluster/machine_id/generation")
        elif (path := _parsed(sender, field, value)) is not None:
            found[field] = path
    return found


def _parsed(sender: int, field: str, value: bytes) -> Path | None:
    with suppress(ValueError):
        path = Path.parse(text(value))
        if str(path).encode() == value:  # scripts compare it with what they find
            return path
    bad(keys.paths(sender), f"field {field}", value, "a path record")
    return None


def event_of(sender: int, seen: Observation, now_ms: int) -> list[str]:
    """Return the event of an observation, field, value, ...; empty if the condition is the same."""
    after = observed(seen.node, seen.before, seen.event, now_ms, seen.reason)
    before = seen.before
    if before is not None and is_void(before, seen.node, now_ms):
        before = None
    cause = Cause(seen.by, seen.reason)
    return _event(sender, seen.node, (before, after), seen.event.value, cause)


def _event(
    sender: int,
    node: Node,
    change: tuple[Path | None, Path | None],
    what: str,
    cause: Cause,
) -> list[str]:
    before, after = change
    was, becomes = (path.condition(node) if path else Condition.UP for path in change)
    if was is becomes:
        return []
    counted = after or before
    fields = audit_fields(node, node, what, cause) | {
        "sender": str(sender),
        "before": was.value,
        "after": becomes.value,
        "no_tries": str(counted.no_tries if counted else 0),
    }
    return flat(fields)


def _text(record: Path | bytes | None) -> str | bytes:
    return str(record or "") if not isinstance(record, bytes) else record
