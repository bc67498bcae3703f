"""Changes of one node: its audit events, and changes without an event, such as of the backlog."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from clusterer.membership import Condition
from clusterer.services.context import Context
from clusterer.services.live.node_rows import Row
from clusterer.store.audit import AuditEvent, AuditStore, EventReader

UNDER_WAY = 100
"""Packets that may be on their way at any time: fewer are no backlog."""


class NodeEvents:
    """The last audit events of one machine_id in some clusters, kept up to date by `refresh`."""

    def __init__(self, context: Context, machine_id: int, keep: int = 20) -> None:
        self._reader = EventReader(AuditStore(context.settings, context.redis))
        self._machine_id = machine_id
        self.last: deque[AuditEvent] = deque(maxlen=keep)
        """Oldest first."""

    def refresh(self, cluster_ids: set[int]) -> list[AuditEvent]:
        """Return the events since the last call, with the past ones of clusters that are new.

        One round trip without a new cluster. Raises `StateUnavailable`.
        """
        past = self._reader.past(cluster_ids - self._reader.seen.keys())
        found = list(islice(self._own(past), self.last.maxlen))[::-1]
        found += self._own(self._reader.new())
        self.last.extend(found)
        return found

    def _own(self, events: Iterable[AuditEvent]) -> Iterator[AuditEvent]:
        return (event for event in events if event.machine_id == self._machine_id)


def changes(before: Row | None, after: Row | None) -> Iterator[str]:
    """Yield the changes without an audit event; ``None``: the node does not exist."""
    if before is None or after is None:
        return
    yield from _backlog_changes(before, after)
    lost = after.lost - before.lost
    if lost > 0:
        yield f"lost {lost} packets: trimmed from the log before the delivery"
    yield from _mute_changes(before, after)
    yield from _path_changes(before, after)


def _backlog_changes(before: Row, after: Row) -> Iterator[str]:
    was, now = _is_behind(before), _is_behind(after)
    if now and not was:
        yield f"is behind: backlog {after.backlog}"
    if was and not now and after.backlog is not None:
        yield f"is not behind any more: backlog {after.backlog}"


def _is_behind(row: Row) -> bool:
    """Whether more packets wait than are on their way at any time: those of about a second."""
    return (row.backlog or 0) > max(UNDER_WAY, row.in_per_s or 0.0)


def _mute_changes(before: Row, after: Row) -> Iterator[str]:
    was = _mutes(before)
    for place, muted_s in _mutes(after).items():
        receiver, module = place
        known = was.get(place)
        if muted_s is not None and known is None:
            yield (
                f"muted by instance {receiver} for {module}: "
                f"the instance drops packets for {muted_s:.0f} s"
            )
        if muted_s is None and known is not None:
            yield f"no longer muted by instance {receiver} for {module}"


def _path_changes(before: Row, after: Row) -> Iterator[str]:
    """Say which senders reach the node no longer, or again, while its verdict stays up."""
    if not before.node.condition is after.node.condition is Condition.UP:
        return
    was = {item.sender for item in before.broken}
    now = {item.sender: item.path.reason for item in after.broken}
    for sender, reason in now.items():
        if sender not in was:
            yield f"sender {sender} does not reach the node" + (f": {reason}" if reason else "")
    for sender in sorted(was - now.keys()):
        yield f"sender {sender} reaches the node again"


def _mutes(row: Row) -> Mapping[tuple[int, str], float | None]:
    return {(item.receiver, item.module): item.muted_s for item in row.last_seen}
