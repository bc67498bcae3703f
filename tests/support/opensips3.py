"""A node of an OpenSIPS 3.x cluster under a test's control: table mode, by the rules of 3.6.

It pings, judges its links, floods what it hears and sends captured packets of modules, as
docs/wire3.md describes real nodes. It shares no code with `clusterer.topology`, so that a
misunderstanding there does not hide here.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from clusterer.wire import FrameDecoder3, Packet, PacketBuilder3, Trailer, WireError

INTERNAL, EXTRA = "clusterer-internal", "clusterer-extra"
PING, PONG, LS_UPDATE, FULL_TOP, UNKNOWN_ID, DESCRIPTION, CAP_UPDATE = 0, 1, 2, 3, 4, 5, 9
UP, PROBE, DOWN = "Up", "Probe", "Down"
"""States of a link, as ``clusterer_list`` prints them."""

_SEND_S = 0.1
"""``bin_send_timeout`` of a real node."""
_FLOODED = frozenset({LS_UPDATE, FULL_TOP, DESCRIPTION, CAP_UPDATE})
_TURN_S = 0.02


class Heard(NamedTuple):
    """A packet that the node accepted."""

    at: float
    """Monotonic seconds."""
    ip: str
    packet: Packet


@dataclass
class Peer:
    """What the node knows of another one."""

    node_id: int
    address: tuple[str, int]
    state: str = PROBE
    restarting: bool = True
    """Whether the next turn of the timer begins to ping."""
    tries: int = 0
    pinged_at: float = 0.0
    ponged_at: float = 0.0
    sent_at: float = 0.0
    history: list[tuple[float, str]] = field(default_factory=list)
    """Changes of the state, with their times (monotonic)."""
    neighbours: list[int] = field(default_factory=list)
    """As the node itself said last."""
    sequences: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Type → sequence number and time of the last packet accepted."""
    sock: socket.socket | None = None


class OpenSips3:
    """Node ``node_id`` of one cluster, listening on ``host``:``port``. A context manager.

    ``others``: node_id → host and port of all other rows of its table. Times are the parameters of
    a real node in seconds; ``timer_s`` is the interval of its timer.
    """

    def __init__(
        self,
        node_id: int,
        address: tuple[str, int],
        others: Mapping[int, tuple[str, int]],
        *,
        cluster_id: int = 1,
        capabilities: Mapping[str, int] | None = None,
        ping_interval: float = 4.0,
        ping_timeout: float = 1.0,
        node_timeout: float = 60.0,
        retries: int = 3,
        timer_s: float = 1.0,
    ) -> None:
        self.node_id = node_id
        self.address = address
        self.cluster_id = cluster_id
        self.capabilities = dict(capabilities or {})
        self.peers = {other: Peer(other, place) for other, place in others.items()}
        self.heard: list[Heard] = []
        self.refused: list[Heard] = []
        """Packets of an unknown source."""
        self.broken: list[WireError] = []
        self._times = ping_interval, ping_timeout, node_timeout
        self._retries = retries
        self._timer_s = timer_s
        self._sequences = dict.fromkeys((LS_UPDATE, FULL_TOP, CAP_UPDATE), -1)
        self._started = int(time.time())
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._frozen = threading.Event()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # -- for tests ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"bin:{self.address[0]}:{self.address[1]}"

    def link(self, node_id: int) -> str:
        """Return the state of the link to a node."""
        return self.peers[node_id].state

    def history(self, node_id: int) -> list[str]:
        """Return all states that the link to a node had, the first change first."""
        return [state for _, state in self.peers[node_id].history]

    def of(self, node_id: int, capability: str, kind: int | None = None) -> list[Packet]:
        """Return the packets that a node sent, by their trailer or ids."""
        return [
            each.packet
            for each in tuple(self.heard)
            if each.packet.machine_id == node_id
            and each.packet.module == capability
            and kind in {None, each.packet.type}
        ]

    def connections_from(self, node_id: int) -> int:
        """Return how many connections from a node's address are open."""
        with self._lock:
            data = [key.data for key in self._selector.get_map().values() if key.data]
        return sum(ip == self.peers[node_id].address[0] for _, ip in data)

    def broadcast(self, packets: Iterable[Packet]) -> None:
        """Send packets of modules to all nodes that are up, each with its own destination."""
        with self._lock:
            for packet in packets:
                for peer in self.peers.values():
                    if peer.state == UP:
                        trailer = Trailer(self.cluster_id, peer.node_id)
                        mine = packet._replace(machine_id=self.node_id, trailer=trailer)
                        self._write(peer, mine.encode())

    def send_raw(self, node_id: int, data: bytes) -> None:
        """Write bytes to a node."""
        with self._lock:
            self._write(self.peers[node_id], data)

    def ping(self, node_id: int) -> None:
        """Ping a node now."""
        with self._lock:
            self._ping(self.peers[node_id], want=0)

    def activate(self, tag: str) -> None:
        """Tell all nodes that a sharing tag is active here."""
        self.broadcast([PacketBuilder3(EXTRA, 13, self.node_id).push_str(tag).build()])

    def reload(self, others: Mapping[int, tuple[str, int]]) -> None:
        """Load the table again: all links and the sequence numbers begin again."""
        with self._lock:
            for peer in self.peers.values():
                _close(peer)
            histories = {peer.node_id: peer.history for peer in self.peers.values()}
            self.peers = {i: Peer(i, place) for i, place in others.items()}
            for peer in self.peers.values():
                peer.history = histories.get(peer.node_id, [])
            self._sequences = dict.fromkeys(self._sequences, -1)
            self._started = int(time.time())

    def freeze(self) -> None:
        """Stop as with SIGSTOP: the kernel accepts, the node reads and writes nothing."""
        self._frozen.set()
        with self._lock:  # no turn is under way any more
            pass

    def thaw(self) -> None:
        """Continue after `freeze`."""
        self._frozen.clear()

    def start(self) -> None:
        """Listen, and ping all nodes; after `stop` as a restarted node, with its links in Probe."""
        assert self._thread is None, "the node is running already"
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self.address)
        listener.listen(64)
        listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._frozen.clear()
        self.reload({peer.node_id: peer.address for peer in self.peers.values()})
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close all sockets, without any goodbye."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()
        for peer in self.peers.values():
            _close(peer)

    # -- the thread -----------------------------------------------------------------------------

    def _run(self, listener: socket.socket) -> None:
        timer_at = time.monotonic() + self._timer_s
        while self._thread is threading.current_thread():
            if self._frozen.wait(0):
                time.sleep(_TURN_S)
                continue
            with self._lock:
                for key, _ in self._selector.select(0):
                    if key.fileobj is listener:
                        self._accept(listener)
                    elif not self._frozen.is_set():
                        assert isinstance(key.fileobj, socket.socket)
                        self._read(key.fileobj, *key.data)
                if time.monotonic() >= timer_at and not self._frozen.is_set():
                    timer_at = time.monotonic() + self._timer_s
                    self._tick(time.monotonic())
            self._selector.select(_TURN_S)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, address = listener.accept()
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, (FrameDecoder3(), address[0]))

    def _read(self, sock: socket.socket, decoder: FrameDecoder3, ip: str) -> None:
        try:
            chunk = sock.recv(65536)
            packets = list(decoder.feed(chunk))
        except BlockingIOError:
            return
        except (OSError, WireError) as error:
            chunk, packets = b"", []
            if isinstance(error, WireError):
                self.broken.append(error)
        for packet in packets:
            self._take(Heard(time.monotonic(), ip, packet))
        if not chunk:
            self._selector.unregister(sock)
            sock.close()

    def _take(self, heard: Heard) -> None:
        """Accept a packet as a real node does: from the IP of any node of the cluster."""
        packet = heard.packet
        ips = {peer.address[0] for peer in self.peers.values()}
        peer = self.peers.get(packet.machine_id or 0)
        cluster_id = packet.trailer.cluster_id if packet.trailer else None
        if cluster_id != self.cluster_id or heard.ip not in ips or peer is None:
            self.refused.append(heard)
            return
        self.heard.append(heard)
        if packet.module == INTERNAL:
            self._control(peer, packet, heard.at)

    # -- links ----------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        interval, timeout, node_timeout = self._times
        for peer in self.peers.values():
            late = peer.pinged_at > peer.ponged_at and now - peer.pinged_at >= timeout
            if peer.restarting or (peer.state == DOWN and now - peer.pinged_at >= node_timeout):
                self._restart(peer)
            elif peer.state == UP and late:
                self._fail(peer)
            elif peer.state == UP and now - max(peer.sent_at, peer.pinged_at) >= interval:
                self._ping(peer, want=0)
            elif peer.state == PROBE and late:
                self._try_again(peer)

    def _restart(self, peer: Peer) -> None:
        """Begin to ping a node: from now on its link is tried."""
        peer.restarting, peer.tries = False, self._retries
        self._change(peer, PROBE)
        self._ping(peer, want=1)

    def _fail(self, peer: Peer) -> None:
        """Count the first missing PONG of a link that was up, and tell the other nodes."""
        peer.tries = self._retries
        self._change(peer, PROBE)
        self._tell_others(peer.node_id, 1)
        self._try_again(peer)

    def _try_again(self, peer: Peer) -> None:
        if not peer.tries:
            self._change(peer, DOWN)
            return
        peer.tries -= 1
        self._ping(peer, want=1)

    def _change(self, peer: Peer, state: str) -> None:
        if peer.state != state:
            peer.state = state
            peer.history.append((time.monotonic(), state))

    def _ping(self, peer: Peer, want: int) -> None:
        peer.pinged_at = time.monotonic()
        self._send(peer, self._packet(PING).push_int(want).build())

    # -- what arrives ---------------------------------------------------------------------------

    def _control(self, peer: Peer, packet: Packet, at: float) -> None:
        if packet.type == PING:
            self._answer(peer, want=packet.fields().pop_int() or 0)
        elif packet.type == PONG:
            self._ponged(peer, _ints(packet), at)
        elif packet.type in _FLOODED and (packet.type == DESCRIPTION or _is_new(peer, packet)):
            self._flooded(peer, packet)

    def _answer(self, peer: Peer, want: int) -> None:
        pong = self._packet(PONG)
        known = [other for other in self.peers if other != peer.node_id] if want else []
        pong.push_int(len(known))
        for other in known:
            pong.push_int(other)
        self._send(peer, pong.build())
        if peer.state == DOWN:
            self._restart(peer)

    def _ponged(self, peer: Peer, known: list[int], at: float) -> None:
        peer.ponged_at = at
        late = at - peer.pinged_at > self._times[1]
        if peer.state == UP or (late and (peer.state == DOWN or peer.restarting)):
            return
        self._change(peer, UP)
        self._tell_others(peer.node_id, 0)
        self._send(peer, self._topology(without=set(known)))
        if self.capabilities:
            self._send(peer, self._announcement(want_reply=1))

    def _flooded(self, peer: Peer, packet: Packet) -> None:
        """Pass a packet on to the neighbours that have not handled it, and answer it."""
        path, wants_reply = _path(packet), False
        if packet.type == CAP_UPDATE:
            at = len(packet.payload) - 4 * len(path) - 8
            wants_reply = packet.payload[at : at + 4] != bytes(4)
            payload = packet.payload[:at] + bytes(4) + packet.payload[at + 4 :]
            packet = packet._replace(payload=payload)
        if packet.type == FULL_TOP:
            peer.neighbours = _neighbours(packet)
        elif packet.type == LS_UPDATE:
            _, _, neighbour, down = _ints(packet, 4)
            peer.neighbours = [*{*peer.neighbours, neighbour} - ({neighbour} if down else set())]
        for other in self.peers.values():
            if other.state == UP and other.node_id not in path:
                self._send(other, _passed_on(packet, [*path, self.node_id]))
        if wants_reply and self.capabilities:
            self._send(peer, self._announcement(want_reply=0))

    # -- what is sent ---------------------------------------------------------------------------

    def _packet(self, kind: int) -> PacketBuilder3:
        return PacketBuilder3(INTERNAL, kind, self.node_id, cluster_id=self.cluster_id)

    def _numbered(self, kind: int) -> PacketBuilder3:
        self._sequences[kind] += 1
        made = self._packet(kind)
        made.push_int(self._sequences[kind]).push_int(self._started)
        return made

    def _tell_others(self, node_id: int, down: int) -> None:
        """Tell the neighbours that the link to a node has changed."""
        told = [peer for peer in self.peers.values() if peer.state == UP]
        packet = self._numbered(LS_UPDATE).push_int(node_id).push_int(down)
        update = packet.push_int(1).push_int(self.node_id).build()
        for peer in told:
            if peer.node_id != node_id:
                self._send(peer, update)

    def _topology(self, without: set[int]) -> Packet:
        """Return the FULL_TOP_UPDATE for a new neighbour that does not know nodes ``without``."""
        up = [peer.node_id for peer in self.peers.values() if peer.state == UP]
        made = self._numbered(FULL_TOP).push_int(1 + len(self.peers))
        made.push_int(self.node_id).push_int(0)
        made.push_int(self._sequences[LS_UPDATE]).push_int(0).push_int(len(up))
        for node_id in up:
            made.push_int(node_id)
        for peer in self.peers.values():
            described = peer.node_id not in without
            made.push_int(peer.node_id).push_int(int(described))
            if described:
                made.push_str(f"bin:{peer.address[0]}:{peer.address[1]}")
                made.push_str("").push_int(50).push_int(3)
            made.push_int(peer.sequences.get(LS_UPDATE, (-1, 0))[0])
            made.push_int(peer.sequences.get(LS_UPDATE, (-1, 0))[1]).push_int(len(peer.neighbours))
            for node_id in peer.neighbours:
                made.push_int(node_id)
        return made.push_int(1).push_int(self.node_id).build()

    def _announcement(self, want_reply: int) -> Packet:
        made = self._numbered(CAP_UPDATE).push_int(1).push_int(self.node_id)
        made.push_int(len(self.capabilities))
        for name, state in self.capabilities.items():
            made.push_str(name).push_int(state)
        return made.push_int(want_reply).push_int(1).push_int(self.node_id).build()

    def _send(self, peer: Peer, packet: Packet) -> None:
        self._write(peer, packet.encode())

    def _write(self, peer: Peer, data: bytes) -> None:
        """Write to a node on the own connection; a failure begins the pings again."""
        try:
            if peer.sock is None or _ended(peer.sock):
                _close(peer)
                source = self.address[0], 0
                peer.sock = socket.create_connection(peer.address, _SEND_S, source)
                peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sock.sendall(data)
            peer.sent_at = time.monotonic()
        except OSError:
            _close(peer)
            if peer.state == UP:
                self._change(peer, PROBE)
                peer.restarting = True


def _ended(sock: socket.socket) -> bool:
    """Tell whether the other side has closed; it never writes."""
    try:
        return not sock.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _close(peer: Peer) -> None:
    if peer.sock is not None:
        peer.sock.close()
        peer.sock = None


def _ints(packet: Packet, count: int | None = None) -> list[int]:
    """Return the first ``count`` integers of a packet; None: a list with its number before it."""
    fields = packet.fields()
    found = (
        fields.pop_int() or 0 for _ in range((fields.pop_int() or 0) if count is None else count)
    )
    return list(found)


def _is_new(peer: Peer, packet: Packet) -> bool:
    """Judge the sequence number of a packet, and keep it if it is newer than the last."""
    number, at = _ints(packet, 2)
    last, last_at = peer.sequences.get(packet.type, (-1, 0))
    new = number > last if number else last != 0 or at > last_at
    if new:
        peer.sequences[packet.type] = number, at
    return new


def _path(packet: Packet) -> list[int]:
    """Return the nodes that have handled a flooded packet: a list at the end of the fields."""
    words = [
        int.from_bytes(packet.payload[at : at + 4], "little")
        for at in range(len(packet.payload) - 4, 0, -4)
    ]
    count = next(
        n for n, word in enumerate(words) if word == n and words[n - 1] == packet.machine_id
    )
    return words[:count][::-1]


def _passed_on(packet: Packet, path: list[int]) -> Packet:
    kept = packet.payload[: len(packet.payload) - 4 * len(path)]
    words = b"".join(word.to_bytes(4, "little") for word in (len(path), *path))
    return packet._replace(payload=kept + words)


def _neighbours(packet: Packet) -> list[int]:
    """Return the neighbours of the first entry of a FULL_TOP_UPDATE: of its sender."""
    fields = packet.fields()
    head = [fields.pop_int() or 0 for _ in range(7)]
    assert head[3:5] == [packet.machine_id, 0], "the first entry is not the sender's"
    return [fields.pop_int() or 0 for _ in range(fields.pop_int() or 0)]
