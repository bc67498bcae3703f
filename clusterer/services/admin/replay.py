"""Sends a recording again: to one node over a connection of its own, or by a function ``send``."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Self

from clusterer.delivery.link import SELF_CONNECTED, connected_to_itself
from clusterer.errors import (
    BufferFull,
    InvalidArgument,
    PeerUnreachable,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
)
from clusterer.runtime.stop import StopFlag
from clusterer.services.admin.recording import Record
from clusterer.services.context import Context
from clusterer.store import ClusterKey
from clusterer.wire import Packet

log = logging.getLogger(__name__)

READING_S = 30.0
"""Time that a node may take to read the bytes in its kernel: replay sees only the end of that."""

TAKING_S = 10.0
"""Time that Redis may take for the packets in the buffer."""

_LOOK_S = 0.2
_AT_ONCE = 500
"""Most packets in one call of ``send``."""
_SLACK_S = 0.001
"""Packets that are due within this time go together."""
_LONGEST_WAIT_S = 3_600.0
"""Longest single wait: the operating system waits for some weeks at the most."""


@dataclass(slots=True)
class Replayed:
    """The result of a replay; `run` counts in it."""

    packets: int = 0
    left_out: int = 0
    """Packets that cannot be sent, such as those without a machine_id."""
    seconds: float = 0.0
    harmful: int = 0
    """Packets left out because they crash OpenSIPS 2.2.8; see `Packet.require_keys`."""
    first_harmful: str = ""
    """Place in the recording, and fault, of the first harmful packet."""


def run(
    records: Iterable[Record],
    send: Callable[[Sequence[Packet]], object],
    stop: StopFlag,
    *,
    speed: float | None,
    machine_id: int | None = None,
    strict: bool = False,
) -> Replayed:
    """Send the packets of ``records`` with the pauses between them, ``speed`` times as fast.

    Without ``speed`` `run` sends as fast as ``send`` takes the packets. With ``machine_id`` all
    packets get this machine_id. ``strict`` leaves out packets that no node of a cluster may send:
    with a type below 0, or without a machine_id. `run` always leaves out packets that crash
    OpenSIPS 2.2.8. Ends early when ``stop`` is set.
    """
    began = monotonic()
    batch: list[Packet] = []
    first: float | None = None
    done = Replayed()
    for record in _selected(records, done, machine_id, strict=strict):
        first = record.time if first is None else first
        due = began + (record.time - first) / speed if speed else began
        if batch and (len(batch) >= _AT_ONCE or due - monotonic() > _SLACK_S):
            send(batch)
            done.packets, batch = done.packets + len(batch), []
        if _stopped_before(due, stop):
            break
        batch.append(record.packet)
    if batch:
        send(batch)
    done.packets += len(batch)
    done.seconds = monotonic() - began
    return done


def _selected(
    records: Iterable[Record], done: Replayed, machine_id: int | None, *, strict: bool
) -> Iterator[Record]:
    """Yield the records to send, with the packets in the form to send; count the others."""
    for number, record in enumerate(records, 1):
        packet = record.packet
        if machine_id is not None and packet.machine_id is not None:
            packet = packet._replace(machine_id=machine_id)
        if strict and (packet.type < 0 or packet.machine_id is None):
            done.left_out += 1
            continue
        try:
            packet.require_keys()
        except InvalidArgument as error:
            done.harmful += 1
            done.first_harmful = done.first_harmful or f"packet {number}: {error}"
            continue
        yield record._replace(packet=packet)


def _stopped_before(due: float, stop: StopFlag) -> bool:
    """Wait until ``due`` (monotonic); return True, at once, if ``stop`` is set."""
    while (wait_s := due - monotonic()) > _SLACK_S:
        if stop.wait(min(wait_s, _LONGEST_WAIT_S)):
            return True
    return stop.is_set()


def require_sender(context: Context, key: ClusterKey) -> None:
    """Raise `UnknownNode` if the cluster lacks the node of our server_id: nodes with a source
    check would drop all packets. Raises `UnknownCluster` for a cluster without nodes, and
    `InvalidArgument` for a cluster of OpenSIPS 3.x.
    """
    if key.cluster_id in context.settings.dialect3:
        raise InvalidArgument(
            f"cluster {key} is one of OpenSIPS 3.x (opensips_3_clusters), to which no recording is "
            "replayed"
        )
    nodes, server_id = context.nodes.view(key).nodes, context.settings.server_id
    if not nodes:
        raise UnknownCluster(f"no node of cluster {key} is provisioned")
    if server_id not in nodes:
        raise UnknownNode(
            f"cluster {key} has no node {server_id} (server_id): nodes with a source check would "
            "drop the packets; `clusterer list` shows all nodes"
        )


@dataclass(frozen=True, slots=True)
class ClusterPosts:
    """Posts packets to a cluster. A full buffer and the end wait for Redis, for a bounded time.

    ``post`` and ``flush`` are those of a `clusterer.Clusterer`.
    """

    post: Callable[[int, str, Packet], object]
    flush: Callable[[float], bool]
    key: ClusterKey
    stop: StopFlag

    def send(self, packets: Sequence[Packet]) -> None:
        """Post packets; raises `StateUnavailable` if Redis takes none for `TAKING_S`."""
        for packet in packets:
            try:
                self.post(*self.key, packet)
            except BufferFull:
                self.finish()
                self.post(*self.key, packet)

    def finish(self) -> None:
        """Wait until Redis has all packets; raises `StateUnavailable` as `send` does."""
        since = monotonic()
        while not self.flush(_LOOK_S):
            waited_s = monotonic() - since
            if waited_s >= TAKING_S or self.stop.is_set():
                raise StateUnavailable(
                    f"cluster {self.key}: Redis has not taken all packets for {waited_s:.3g} s"
                )


class NodeConnection:
    """A BIN connection to one address.

    Raises `PeerUnreachable` if the connection, or the node's next read, takes over ``timeout_s``.
    """

    def __init__(self, host: str, port: int, timeout_s: float, source: str = "") -> None:
        """Connect, from the local address ``source`` if there is one."""
        self._name = f"{host} port {port}"
        self._timeout_s = timeout_s
        local = (source, 0) if source else None
        try:
            self._socket = socket.create_connection((host, port), timeout_s, local)
        except OSError as error:
            where = f" from {source}" if source else ""
            raise self._unreachable(f"cannot connect{where}", error) from error
        if connected_to_itself(self._socket):
            self._socket.close()
            raise PeerUnreachable(f"{self._name}: cannot connect: {SELF_CONNECTED}")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, packets: Sequence[Packet]) -> None:
        """Write the packets' frames; takes as long as the node reads."""
        rest = memoryview(b"".join([packet.encode() for packet in packets]))
        try:
            while rest:  # sendall has one deadline for everything
                rest = rest[self._socket.send(rest) :]
        except OSError as error:
            raise self._unreachable("stopped taking packets", error) from error

    def finish(self, stop: StopFlag, reading_s: float = READING_S) -> None:
        """Wait until the node has read all bytes, and closed its side after ours.

        The wait ends ``reading_s`` after the node's kernel last took bytes; earlier once ``stop``
        is set.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
            self._wait_for_end(stop, reading_s)
        except OSError as error:
            raise self._unreachable("did not confirm that it read everything", error) from error

    def _wait_for_end(self, stop: StopFlag, reading_s: float) -> None:
        since, queued, said = monotonic(), self._queued(), False
        self._socket.settimeout(min(_LOOK_S, self._timeout_s))
        while True:
            with contextlib.suppress(TimeoutError):
                if not self._socket.recv(4096):
                    return
            if queued != (queued := self._queued()):
                since = monotonic()
            waited_s = monotonic() - since
            if waited_s >= (self._timeout_s if stop.is_set() else reading_s):
                raise OSError(f"no progress for {waited_s:.3g} s")
            if waited_s >= self._timeout_s and not said:
                said = True
                log.warning("%s: has not read all packets yet; replay waits", self._name)

    def _queued(self) -> int:
        """Return the bytes that the node's kernel has not taken yet."""
        queued: int = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0]
        return queued

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _unreachable(self, what: str, error: OSError) -> PeerUnreachable:
        why = error.strerror or str(error)
        if isinstance(error, TimeoutError):
            why = f"no progress for {self._timeout_s:g} s"
        return PeerUnreachable(f"{self._name}: {what}: {why}")
