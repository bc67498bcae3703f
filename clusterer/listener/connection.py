"""One inbound connection: bytes in, packets to their routes. The hot path of receiving."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import cast

from clusterer.errors import WireError
from clusterer.listener.addresses import normalised_ip
from clusterer.listener.dispatch import Call, Dispatcher, Route
from clusterer.listener.registrations import ReceiveInfo
from clusterer.wire import FrameDecoder

BUFFER_SIZE = 65_536
"""Bytes taken from a connection before others have their turn: the share of a peer that floods."""

_MOST_ROUTES = 64
"""Routes remembered per connection. A peer has one per module; one that invents machine_ids must
not fill our memory."""

_new = tuple.__new__  # a named tuple's own constructor takes three times as long


class Shared:
    """What all connections of a listener share: the receive buffer among it, which is used up
    before the event loop turns to the next connection.
    """

    def __init__(self, dispatcher: Dispatcher, max_connections: int) -> None:
        self.dispatcher = dispatcher
        self.max_connections = max_connections
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)
        self.connections: set[Connection] = set()


class Connection(asyncio.BufferedProtocol):
    """Reads frames from one peer and hands each packet to whom it concerns."""

    def __init__(self, shared: Shared, address: tuple[str, int]) -> None:
        self._shared = shared
        self._dispatcher = shared.dispatcher
        self._counters = shared.dispatcher.counters
        self._decoder = FrameDecoder()
        self._routes: dict[tuple[str, int | None], Route] = {}
        self._epoch = -1
        self._skipped = 0
        self._transport: asyncio.Transport | None = None
        self._message_since: float | None = None
        self._last_packet_at = 0.0
        self.address = address
        """The listening address it came in on."""
        self.source = ("", 0)
        """IP and port of the peer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        self.source = (normalised_ip(peer[0]), peer[1])
        self._last_packet_at = monotonic()
        if len(self._shared.connections) >= self._shared.max_connections:
            self._refuse()
            return
        self._shared.connections.add(self)
        self._counters.connections_accepted += 1
        self._counters.connections_open = len(self._shared.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._routes.clear()
        self._shared.connections.discard(self)
        self._counters.connections_open = len(self._shared.connections)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.view

    def buffer_updated(self, nbytes: int) -> None:
        now = monotonic()
        self._counters.bytes += nbytes
        if self._epoch != self._dispatcher.epoch:
            self._epoch = self._dispatcher.epoch
            self._routes.clear()
        try:
            count = self._dispatch(bytes(self._shared.view[:nbytes]), now)
        except WireError as error:
            self._condemn(error)
            return
        self._note_progress(now, count)

    def _dispatch(self, chunk: bytes, now: float) -> int:
        """Hand over the packets that ``chunk`` completes; returns their number.

        Consecutive packets mostly are of the same module and sender: their route is looked up,
        and their sign of life noted, once.
        """
        source, count, module, sender = self.source, 0, None, None
        calls: tuple[Call, ...] = ()
        try:
            for packet in self._decoder.feed(chunk):
                count += 1
                kind, machine_id = packet.type, packet.machine_id
                if kind < 0:
                    self._dispatcher.drop_negative(source[0], kind, machine_id)
                    continue
                if machine_id != sender or packet.module != module:
                    module, sender = packet.module, machine_id
                    calls = self._enter(module, sender, now)
                info = _new(ReceiveInfo, (source, packet))
                for call in calls:
                    try:
                        call(kind, info, machine_id)
                    except Exception as error:  # noqa: BLE001 - a module's fault, not the peer's
                        self._dispatcher.callback_failed(error, module, call, source)
        finally:
            self._counters.packets += count
        return count

    def _enter(self, module: str, machine_id: int | None, now: float) -> tuple[Call, ...]:
        """Return what to call with packets of ``module`` from ``machine_id``, which lives."""
        key = module, machine_id
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            route = self._dispatcher.route(self.source[0], module, machine_id)
            self._routes[key] = route
        if machine_id is not None:
            for registration in route.noted:
                registration.heard[machine_id] = now
        return route.calls

    def _note_progress(self, now: float, count: int) -> None:
        if count:
            self._last_packet_at = now
        if not self._decoder.in_message:
            self._message_since = None
        elif count or self._message_since is None:
            self._message_since = now
        self._counters.skipped_words += self._decoder.skipped_words - self._skipped
        self._skipped = self._decoder.skipped_words

    # -- ends ---------------------------------------------------------------------------------

    def expire(self, now: float, lifetime_s: float, max_message_s: float) -> None:
        """Close the connection if it was idle, or a frame has been coming in, for too long.

        ``now`` is monotonic; idle is a connection on which no frame was completed.
        """
        if self._message_since is not None and now - self._message_since > max_message_s:
            why = f"a frame did not end within {max_message_s:g} s"
            self._dispatcher.limited.warning(
                ("expired", self.source[0]), now, "closing %s:%d: %s", *self.source, why
            )
        elif now - self._last_packet_at <= lifetime_s:
            return
        self._counters.connections_expired += 1
        self.close()

    def close(self) -> None:
        """End the connection now; what the peer has sent and we have not read is lost."""
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self) -> None:
        self._counters.connections_refused += 1
        self._dispatcher.limited.warning(
            "refused",
            monotonic(),
            "refused a connection from %s:%d: max_connections (%d) are open",
            *self.source,
            self._shared.max_connections,
        )
        self.close()

    def _condemn(self, error: WireError) -> None:
        self._counters.wire_errors += 1
        self._dispatcher.limited.warning(
            ("wire", self.source[0]), monotonic(), "closing %s:%d: %s", *self.source, error
        )
        self.close()
