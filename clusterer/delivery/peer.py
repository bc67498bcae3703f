"""One peer of a sender session: its offsets in the log, its outbox and its connection."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from time import monotonic
from typing import NamedTuple

from clusterer.delivery.batch import Batch, ClusterFrames, Outbox
from clusterer.delivery.link import Link
from clusterer.delivery.meter import Flow
from clusterer.delivery.peer_states import TRANSITIONS, PeerEvent, PeerState
from clusterer.membership import Node, State
from clusterer.membership.paths import Path, gate
from clusterer.store.deliveries import Move


class Mark(NamedTuple):
    """One write: its end in the bytes of the connection, and the offsets before it."""

    end: int
    offset: int
    n: int | None
    skipped: int
    lost: int


_MAX_MARKS = 64
"""Marks above which the peer asks the kernel for acknowledged bytes, to drop marks."""


class Peer:
    """One node as the receiver of one sender's packets.

    ``sent_offset`` is the sequence of the last packet offered to the peer, ``committed_offset``
    that of the last packet written whole (or skipped). The two differ while the outbox has bytes.
    ``recorded_offset`` is the committed offset that Redis has.
    """

    def __init__(self, node: Node, offset: int, n: int | None, *, guarded: bool) -> None:
        self.node = node
        self.up = node.state is not State.DOWN
        """The gate: whether the sender sends packets to the node now. Changes by `judge` only."""
        self.key = node.cluster
        self.destination = node.destination
        self.stats_prefix = f"{self.destination}/"
        self.sent_offset = self.committed_offset = self.recorded_offset = offset
        self.sent_n = self.committed_n = self.recorded_n = n
        """The cluster's packet count at each of these offsets; None while unknown."""
        self.counters: Counter[str] = Counter()
        """Counted since the last commit."""
        self._skipped = self._lost = 0
        """Counted since the peer was made; used for differences only."""
        self.flow: Flow | None = None
        """Where writes are counted, if metrics are on."""
        self.state = PeerState.GUARDED if guarded else PeerState.IDLE
        """Changes by `change` only."""
        self.link: Link | None = None
        self.outbox: Outbox | None = None
        self.attempted: Node | None = None
        """The node as it was when the last connection attempt began; None once it has worked."""
        self.source: str | None = None
        """Source IP of that attempt; None: any."""
        self.strikes = 0
        """Young connections in a row that the peer has ended."""
        self.retry_at = 0.0
        self.pause_s = 0.0
        """Last pause that was made because the peer wrote on its connection."""
        self.written = 0
        """Bytes given to the connection."""
        self._marks: deque[Mark] = deque()
        """Writes that are not known to be acknowledged."""

    def judge(self, path: Path | None, now_ms: int) -> bool:
        """Open or close the gate by the sender's record of the path; True if that changed it."""
        was_up, self.up = self.up, gate(self.node, path, now_ms)
        if was_up and not self.up:
            self._stop_writing()
        return was_up != self.up

    def change(self, event: PeerEvent) -> None:
        """Change to the state that the table has for ``event``."""
        self.state = TRANSITIONS[self.state, event]

    @property
    def connected(self) -> bool:
        """Whether the session has an established connection."""
        return self.state is PeerState.STREAMING or self.state is PeerState.BLOCKED

    @property
    def lacks_link(self) -> bool:
        """Whether packets wait and a connection may be made."""
        return self.state is PeerState.CONNECTING and self.link is None and self.up

    def ready(self, replay: bool) -> bool:
        """Whether a batch can be offered now: to be written, or skipped if the gate is closed."""
        state, up = self.state, self.up
        if state is PeerState.STREAMING or state is PeerState.IDLE:
            return up or not replay
        return state is PeerState.CONNECTING and not up and not replay

    def offer(self, batch: Batch) -> bool:
        """Write the frames of the node's cluster, or skip them if the gate is closed.

        The batch must follow the sent offset. Returns False if the node could not take all of it:
        the peer is blocked with the rest in its outbox, or connecting. Raises `LinkBroken`.
        """
        frames = batch.clusters.get(self.key)
        if frames is None:
            self.sent_offset = self.committed_offset = batch.last
            return True
        link = self.link
        up = self.up
        if up and link is None:
            self.change(PeerEvent.PACKETS_WAIT)
            return False
        if self.sent_n is None or frames.first_n > self.sent_n + 1:
            if self.sent_n is not None:
                self._lose(frames.first_n - self.sent_n - 1)
            # Known now, and counted, even if the write fails.
            self.sent_n = self.committed_n = frames.first_n - 1
        if link is None or not up:
            self._skip(frames.packets)
            self._reach(batch.last, frames.last_n)
            return True
        data = frames.addressed(self.node.machine_id) if frames.dialect3 else frames.data
        written = self._send(link, data)
        if written == len(data):
            self._count_sent(link, frames, 0, frames.packets)
            self._reach(batch.last, frames.last_n)
            return True
        self.outbox = Outbox(frames, data, written, batch.last)
        self.change(PeerEvent.SOCKET_FULL)
        self.sent_offset, self.sent_n = batch.last, frames.last_n
        self._advance(0)
        return False

    def flush(self) -> bool:
        """Write more of the outbox; True once it is empty. Raises `LinkBroken`."""
        box = self.outbox
        if box is None:
            return True
        assert self.link is not None  # noqa: S101  an outbox never outlives its link
        before = bisect_right(box.frames.ends, box.offset)
        if box.offset < box.end:
            box.offset += self._send(self.link, box.view[box.offset : box.end])
        self._advance(before)
        if box.offset < box.end:
            return False
        self.outbox = None
        self.change(PeerEvent.SOCKET_FREE)
        self._skip(box.skipped)
        self.committed_offset, self.committed_n = box.last, box.last_n
        return True

    def _stop_writing(self) -> None:
        """Skip the frames of the outbox that are not begun: the gate is closed now."""
        box = self.outbox
        if box is not None:
            box.skipped = box.frames.packets - box.cut()

    def release(self) -> None:
        """Begin to close: the outbox's frames that are not begun are for the next worker."""
        self.change(PeerEvent.RELEASED)
        box = self.outbox
        if box is not None:
            kept = box.cut()
            box.skipped = 0  # the next worker decides
            box.last, box.last_n = self.committed_offset, self.committed_n
            if kept:
                box.last, box.last_n = box.frames.sequence(kept - 1), box.frames.first_n + kept - 1

    def skip_to(self, offset: int, n: int | None) -> None:
        """Go to ``offset``, counting the packets in between as skipped."""
        if self.sent_n is not None and n is not None:
            self._skip(n - self.sent_n)
        self._reach(offset, n)

    def lose_to(self, offset: int, n: int | None) -> None:
        """Go to ``offset``, counting the packets in between, which the log has no more, as lost."""
        if self.sent_n is not None and n is not None and n > self.sent_n:
            self._lose(n - self.sent_n)
        self._reach(offset, n)

    def go_on_from(self, offset: int, n: int | None) -> None:
        """Continue at the offset that another worker's connection has reached."""
        self._reach(offset, n)
        self.recorded_offset, self.recorded_n = offset, n

    def acknowledged_bytes(self) -> int:
        """Return how many written bytes the peer's kernel has acknowledged; one system call."""
        return self.written - self.link.unacknowledged() if self.link is not None else 0

    def acknowledged_offset(self) -> int:
        """Return the sequence up to which the peer's kernel has acknowledged every packet."""
        if self.link is not None and self._marks:
            acknowledged = self.acknowledged_bytes()
            while self._marks and self._marks[0].end <= acknowledged:
                self._marks.popleft()
        return self._acknowledged

    @property
    def _acknowledged(self) -> int:
        """`acknowledged_offset` as of the last system call."""
        return self._marks[0].offset if self._marks else self.committed_offset

    def rewind(self) -> None:
        """Forget a broken connection; packets that have not arrived are to be offered again."""
        self.acknowledged_offset()
        # Packets wait for a connection on which none was written.
        repeat = self.outbox is not None or bool(self._marks) or not self.written
        if self._marks:
            mark = self._marks[0]
            skipped, lost = self._skipped - mark.skipped, self._lost - mark.lost
            self._skip(-skipped)
            self._lose(-lost)
            if mark.n is not None and self.committed_n is not None:
                self.counters["sent"] -= self.committed_n - mark.n - skipped - lost
            self.committed_offset, self.committed_n = mark.offset, mark.n
        self.forget_link(PeerEvent.BROKEN if repeat else PeerEvent.ENDED)

    def forget_link(self, event: PeerEvent = PeerEvent.ENDED) -> None:
        """Forget the connection; packets that are not written whole are to be offered again."""
        self.change(event)
        self.written = 0
        self._marks.clear()
        self.link = self.outbox = None
        self.sent_offset, self.sent_n = self.committed_offset, self.committed_n

    def young(self) -> bool:
        """Whether the connection lived for less than a second."""
        return self.link is not None and monotonic() - self.link.since < 1.0

    def is_recorded(self) -> bool:
        """Whether Redis has the committed offset and its packet count."""
        return self.committed_offset == self.recorded_offset and self.committed_n == self.recorded_n

    def move(self) -> Move:
        """Return the committed offset, for a commit. The one place that checks the offsets."""
        assert self._acknowledged <= self.committed_offset <= self.sent_offset, self.destination  # noqa: S101
        return Move(self.destination, self.committed_offset, self.committed_n)

    def record(self) -> Move:
        """Return the committed offset for a commit, and take it as recorded."""
        move = self.move()
        self.recorded_offset, self.recorded_n = move.sequence, move.n
        return move

    def take_counters(self) -> dict[str, int | str]:
        """Return and clear what was counted since the last commit, under the stats' names."""
        found: dict[str, int | str] = {
            self.stats_prefix + name: count for name, count in self.counters.items() if count
        }
        if self.counters["sent"] > 0:
            found[self.stats_prefix + "last_delivered"] = "now"
        self.counters.clear()
        return found

    def _skip(self, packets: int) -> None:
        self.counters["skipped"] += packets
        self._skipped += packets

    def _lose(self, packets: int) -> None:
        self.counters["lost"] += packets
        self._lost += packets

    def _reach(self, offset: int, n: int | None) -> None:
        self.sent_offset = self.committed_offset = offset
        self.sent_n = self.committed_n = n

    def _send(self, link: Link, data: bytes | memoryview) -> int:
        written = link.send(data)
        if written:
            self.written += written
            reached = self.committed_offset, self.committed_n
            self._marks.append(Mark(self.written, *reached, self._skipped, self._lost))
            if len(self._marks) > _MAX_MARKS:
                self.acknowledged_offset()
        return written

    def _count_sent(self, link: Link, frames: ClusterFrames, first: int, end: int) -> None:
        """Count the frames from index ``first`` to before ``end``, just written."""
        self.counters["sent"] += end - first
        if self.flow is not None:
            self.flow.count(frames.modules.between(first, end))
            self.flow.wrote(frames.stamps, first, end, link.progress_at)

    def _advance(self, before: int) -> None:
        box = self.outbox
        assert box is not None  # noqa: S101  only called while there is one
        whole = bisect_right(box.frames.ends, box.offset)
        if whole > before:
            assert self.link is not None  # noqa: S101  what is written was written to it
            self._count_sent(self.link, box.frames, before, whole)
            self.committed_offset = box.frames.sequence(whole - 1)
            self.committed_n = box.frames.first_n + whole - 1
