"""The ways of a packet from a program to the sender's log."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.ids import PROTO_BIN, require_id, require_protocol, require_seconds
from clusterer.sending.background import BackgroundSender
from clusterer.sending.frames import frame3_of, frame_of
from clusterer.sending.view import InstanceView
from clusterer.settings import Settings
from clusterer.store import ClusterKey
from clusterer.store.append_commands import sub_batches
from clusterer.store.append_queue import PostCounts, Tell
from clusterer.store.labels import Offers
from clusterer.store.packets import PacketLog
from clusterer.wire import Packet

log = logging.getLogger(__name__)

CLOSE_S = 2.0
"""Time that `close` gives posted packets to get into the log."""

Count = Callable[[ClusterKey, Sequence[Packet], Sequence[bytes]], None]


class Sending:
    """One call of `send_many`: notes in errors, and in the metrics, what the log has accepted."""

    __slots__ = ("_count", "accepted", "frames", "key", "packets")

    def __init__(
        self,
        key: ClusterKey,
        packets: Sequence[Packet],
        frames: list[bytes],
        count: Count | None,
    ) -> None:
        """``count`` counts packets for the metrics; None: no process shows them."""
        self.key = key
        self.packets = packets
        self.frames = frames
        self.accepted = 0
        """Packets, from the first on, that the log has."""
        self._count = count

    @property
    def sub_batches(self) -> Iterator[Sequence[bytes]]:
        """The frames in sub-batches, to be appended one after the other."""
        return sub_batches(self.frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, StateUnavailable):
            error.accepted = self.accepted
        if self._count is not None:
            self._count(self.key, self.packets[: self.accepted], self.frames[: self.accepted])


class Sender:
    """Sends the packets of one instance: `send` blocks, `post` and `submit` do not.

    All three share one queue, whose order is the order of the log. Safe to share between threads.
    """

    def __init__(
        self,
        settings: Settings,
        machine_id: int,
        view: InstanceView,
        offers: Offers,
        enqueue: Callable[[], None],
    ) -> None:
        """``enqueue`` enqueues a delivery job, and does not raise."""
        self._id = machine_id
        self._view = view
        self._directory = view.directory
        self._enqueue = enqueue
        self._packets = PacketLog(settings, machine_id, view.refusal)
        self._queue = self._packets.queue
        self._background = BackgroundSender(settings, machine_id, self._packets, enqueue)
        self._keys: dict[int, ClusterKey] = {}
        self._dialect3 = settings.dialect3
        self._at_exit = partial(_flush_at_exit, weakref.ref(self))
        self._offered: Count | None = offers.add if settings.metrics_port else None

    @property
    def counts(self) -> PostCounts:
        """What became of posted packets."""
        return self._queue.counts

    @property
    def waiting_bytes(self) -> int:
        """Bytes of posted packets that the log does not have yet."""
        return self._queue.posted_bytes

    def key_of(self, cluster_id: int, proto: str) -> ClusterKey:
        """Return the cluster to send to; raises `InvalidArgument`. One object per cluster."""
        if proto != PROTO_BIN and require_protocol(proto) != PROTO_BIN:
            raise InvalidArgument(f"packets can be sent over 'bin' only, not {proto!r}")
        # The log holds it as text: 1.0 and True, equal to a known 1, would poison it.
        key = self._keys.get(cluster_id) if type(cluster_id) is int else None
        if key is None:
            cluster_id = int(require_id("cluster_id", cluster_id))
            key = self._keys.setdefault(cluster_id, ClusterKey(cluster_id, PROTO_BIN))
        return key

    def sending(self, cluster_id: int, proto: str, packets: Sequence[Packet]) -> Sending:
        """Return the `Sending` of packets; raises `InvalidArgument`, `FrameTooLarge`."""
        key = self.key_of(cluster_id, proto)
        encode = (
            partial(frame3_of, key.cluster_id) if key.cluster_id in self._dialect3 else frame_of
        )
        try:
            frames = list(map(encode, packets))
        except TypeError:
            if isinstance(packets, Iterable):
                raise
            raise InvalidArgument(f"packets must be a sequence, not {packets!r:.80}") from None
        return Sending(key, packets, frames, self._offered)

    def send(self, cluster_id: int, proto: str, packets: Sequence[Packet]) -> int:
        """Append packets to the log, and return how many nodes are up; blocks.

        See `clusterer.Clusterer.send_many`.
        """
        with self.sending(cluster_id, proto, packets) as call:
            nodes = self._view.up(call.key, must_exist=True)
            for frames in call.sub_batches:
                self._append(call.key, frames)
                call.accepted += len(frames)
        return len(nodes)

    def _append(self, key: ClusterKey, frames: Sequence[bytes]) -> None:
        try:
            enqueue = self._packets.append(key, frames)
        except StateUnavailable as error:
            if error.enqueue:  # stored, and too few replicas have it
                self._enqueue()
            raise
        if enqueue:
            self._enqueue()

    def submit(self, key: ClusterKey, frames: Sequence[bytes], waiter: object, tell: Tell) -> None:
        """Have the background thread append frames: see `AppendQueue.submit`."""
        self._queue.submit(key, frames, waiter, tell)
        if not self._background.runs:
            self._start()

    def post(self, cluster_id: int, proto: str, packet: Packet) -> int:
        """Put a packet into the buffer, and return how many nodes are up: see `Clusterer.post`."""
        key = self.key_of(cluster_id, proto)
        if key.cluster_id in self._dialect3:
            frame = frame3_of(key.cluster_id, packet)
        else:
            frame = frame_of(packet)
        nodes = self._view.up_at_once(key)
        self._queue.post(key, frame, is_known=nodes is not None and self._directory.is_kept_fresh)
        if not self._background.runs:
            self._start()
        if self._offered is not None:
            self._offered(key, (packet,), (frame,))
        return 0 if nodes is None else len(nodes)

    def begin_flush(self, timeout_s: float | None, call: Callable[[], object]) -> bool | None:
        """Return what `flush` answers at once, or None: ``call`` is called when it is True.

        Raises `InvalidArgument` for a ``timeout_s`` that cannot be waited.
        """
        if timeout_s is not None:
            require_seconds("timeout", timeout_s)
        if timeout_s == 0:
            return not self._queue.posted_bytes
        return None if self._queue.when_sent(call) else True

    def forget(self, call: Callable[[], object]) -> None:
        """Call ``call`` no more: see `begin_flush`."""
        self._queue.forget(call)

    def flush(self, timeout_s: float | None) -> bool:
        """Wait until no packet posted until now waits; False after ``timeout_s``."""
        sent = threading.Event()
        answer = self.begin_flush(timeout_s, sent.set)
        if answer is None:
            answer = sent.wait(timeout_s)
            self.forget(sent.set)
        return answer

    def close(self) -> None:
        """Flush for `CLOSE_S` at most, drop and log what is left, and close the connection."""
        if self._background.runs:
            self.flush(CLOSE_S)
            self._background.stop(CLOSE_S)
        left = self._queue.end(
            StateUnavailable("the instance was closed before Redis had the packet")
        )
        if left:
            text = "sender %d: closed with %d posted packets left that Redis did not take"
            log.warning(text, self._id, left)
        self._packets.close()
        atexit.unregister(self._at_exit)

    def _start(self) -> None:
        self._background.start()
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)


def _flush_at_exit(reference: weakref.ref[Sender]) -> None:
    """Give the packets of an instance that was not closed the time that `close` gives."""
    sender = reference()
    if sender is not None:
        sender.flush(CLOSE_S)
