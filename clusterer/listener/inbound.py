"""One inbound connection: from bytes to calls of callbacks. The hot path of receiving."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from time import monotonic
from typing import cast

from clusterer.errors import WireError
from clusterer.listener.dispatch import Route
from clusterer.listener.drops import CALLBACK_ERRORS, Call
from clusterer.listener.registrations import ReceiveInfo
from clusterer.listener.shared import Shared
from clusterer.membership.addresses import normalised_ip
from clusterer.wire import Packet, Trailer
from clusterer.wire.decoder import then_raise

SLICE_S = 0.01
"""Time for which callbacks get packets of one connection before the next connection has its turn.
A callback that takes longer delays the next connection by its own time, once."""

_MOST_ROUTES = 64
"""Routes kept per connection. A peer has one per module; invented machine_ids must not fill the
memory."""

_TRAILER = attrgetter("trailer")

_new = tuple.__new__  # the constructor of a named tuple takes three times as long


class Connection(asyncio.BufferedProtocol):
    """Reads frames from one peer, and hands each packet to its callbacks."""

    def __init__(self, shared: Shared[Connection], address: tuple[str, int]) -> None:
        self._shared = shared
        self._view = shared.unknown_view
        self._dispatcher = shared.dispatcher
        self._drops = shared.dispatcher.drops
        self._counters = shared.dispatcher.counters
        self._decoder = shared.decoder()
        self._routes: dict[tuple[str, int | None, Trailer | None], Route] = {}
        self._epoch = -1
        self._skipped = 0
        self._transport: asyncio.Transport | None = None
        self._message_since: float | None = None
        self._parked: Iterator[Packet] | None = None
        self.address = address
        """The listening address that accepted the connection."""
        self.source = ("", 0)
        """IP and port of the peer."""
        self.has_frame = False
        """Whether a whole frame was received."""
        self.last_frame_at = 0.0
        """Time of the last whole frame, or of the accept (monotonic seconds)."""

    @property
    def descriptor(self) -> int:
        """The socket's descriptor, -1 without one."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return -1 if sock is None else sock.fileno()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        self.source = (normalised_ip(peer[0]), peer[1])
        self.last_frame_at = monotonic()
        if not self._shared.admission.admit(self):
            self.close()
        self._choose_view()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._count_parked()
        self._routes.clear()
        self._shared.admission.leave(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def _choose_view(self) -> None:
        shared = self._shared
        known = shared.admission.knows(self.source[0])
        self._view = shared.view if known else shared.unknown_view

    def buffer_updated(self, nbytes: int) -> None:
        now = monotonic()
        self._counters.bytes += nbytes
        packets = self._packets(bytes(self._view[:nbytes]))
        if self._shared.capture.active:
            packets = self._shared.capture.copied(packets, self.source)
        self._proceed(packets, now)

    def _packets(self, chunk: bytes) -> Iterator[Packet]:
        try:
            return self._decoder.feed(chunk)
        except WireError as error:
            return then_raise([], error)

    def _proceed(self, packets: Iterator[Packet], now: float) -> None:
        """Hand over packets for `SLICE_S`; the others wait for the connection's next turn."""
        if self._epoch != self._dispatcher.epoch:
            self._epoch = self._dispatcher.epoch
            self._routes.clear()
            self._choose_view()
        try:
            finished = self._dispatch(packets, now)
            if not finished:
                self._park(packets)
            elif self._parked is not None:
                self._unpark()
        except WireError as error:
            self._condemn(error)

    def _dispatch(self, packets: Iterator[Packet], now: float) -> bool:
        """Hand over ``packets``; return False if `SLICE_S` ended before the packets."""
        if not self._decoder.opensips_3:
            return self._hand_over(packets, now)
        # An iterator of `groupby` takes no packet from ``packets`` before it returns the packet.
        finished = all(self._hand_over(run, now) for _, run in groupby(packets, _TRAILER))
        self._note_progress(now, 0)
        return finished

    def _hand_over(self, packets: Iterator[Packet], now: float) -> bool:
        """Do the same for packets with one trailer.

        Consecutive packets mostly have the same module and sender: the method looks up the route
        and renews the last-seen time once for all of them.
        """
        source, count, module, sender = self.source, 0, None, None
        weigh, payloads = self._counters.weigh, 0
        calls: tuple[Call, ...] = ()
        tally, began = self._counters.others, 0
        until = now + SLICE_S
        try:
            for packet in packets:
                count += 1
                kind, machine_id = packet.type, packet.machine_id
                if kind < 0:
                    self._drops.negative_type(source[0], kind, machine_id)
                    began += 1  # not part of the tally
                    self._counters.others.add(1, 0)
                    continue
                if machine_id != sender or packet.module != module:
                    tally.add(count - 1 - began, payloads)
                    module, sender, began, payloads = packet.module, machine_id, count - 1, 0
                    route = self._enter(packet, now)
                    calls, tally = route.calls, route.tally or self._counters.others
                if weigh:
                    payloads += len(packet.payload)
                info = _new(ReceiveInfo, (source, packet))
                for call in calls:
                    try:
                        call(kind, info, machine_id)
                    except CALLBACK_ERRORS as error:
                        self._drops.callback_failed(error, module, call, source, machine_id)
                if monotonic() > until:
                    return False
        finally:
            tally.add(count - began, payloads)
            self._counters.packets += count
            self._note_progress(now, count)
        return True

    # -- slow callbacks ---------------------------------------------------------------------------

    def _park(self, packets: Iterator[Packet]) -> None:
        """Keep the remaining packets, pause reading, and continue in the connection's next turn."""
        if self._transport is None:
            return
        if self._parked is None:
            packets = self._noted(packets)
            self._transport.pause_reading()
        self._parked = packets
        asyncio.get_running_loop().call_soon(self._resume)

    def _noted(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Renew the last-seen times of packets that have to wait."""
        rest: list[Packet] = []
        now, known = monotonic(), None
        try:
            for packet in packets:
                rest.append(packet)
                key = packet.module, packet.machine_id, packet.trailer
                if packet.type >= 0 and key != known:
                    self._enter(packet, now)
                    known = key
        except WireError as error:
            return then_raise(rest, error)
        return iter(rest)

    def _resume(self) -> None:
        if self._parked is not None:
            self._proceed(self._parked, monotonic())

    def _unpark(self) -> None:
        self._parked = None
        if self._transport is not None:
            self._transport.resume_reading()

    def _enter(self, packet: Packet, now: float) -> Route:
        """Return the route of such packets, and renew the last-seen time of their sender."""
        module, _, machine_id, _, _, trailer = packet
        key = module, machine_id, trailer
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            route = self._dispatcher.route(self.source[0], *key)
            self._routes[key] = route
        if machine_id is not None:
            for registration in route.noted:
                registration.last_seen[machine_id] = now
        return route

    def _note_progress(self, now: float, count: int) -> None:
        if count:
            self.last_frame_at, self.has_frame = now, True
        if not self._decoder.in_message:
            self._message_since = None
        elif count or self._message_since is None or self._parked is not None:
            self._message_since = now
        self._counters.skipped_words += self._decoder.skipped_words - self._skipped
        self._skipped = self._decoder.skipped_words

    def _count_parked(self) -> None:
        """Count the packets that still waited when the connection closed."""
        parked, self._parked = self._parked, None
        with contextlib.suppress(WireError):
            for _ in parked or ():
                self._counters.packets += 1
                self._counters.drops["stopped"] += 1

    # -- ends ---------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Close the connection if it is idle, or if a frame has been unfinished, for too long.

        ``now`` is a monotonic time up to which everything was read. A connection without a
        completed frame is idle; the limit for the first frame is shorter. The method never closes
        a connection while its packets wait for a slow callback.
        """
        reason = self._overdue(now) if self._parked is None else ""
        if reason:
            self._counters.connections_expired += 1
            self._counters.closed[reason] += 1
            self.close()

    def _overdue(self, now: float) -> str:
        """Return the reason to close the connection at ``now``; empty if there is none."""
        settings, log = self._shared.settings, self._drops.limited
        if self._message_since is not None:
            limit_s = settings.max_message_time
            if now - self._message_since > limit_s:
                why = f"a frame did not end within {limit_s:g} s"
                key = "expired", self.source[0]
                log.warning(key, now, "connection %s:%d: closed: %s", *self.source, why)
                return "unfinished frame"
        idle_s = now - self.last_frame_at
        if not self.has_frame:
            limit_s = self._shared.admission.patience_s(self.source[0])
            if idle_s > limit_s:
                why = f"no frame within {limit_s:g} s"
                log.warning("silent", now, "connection %s:%d: closed: %s", *self.source, why)
                return "no frame"
        return "idle" if idle_s > settings.connection_lifetime else ""

    def close(self) -> None:
        """Close the connection at once; unread bytes of the peer are lost."""
        if self._transport is not None:
            self._transport.abort()

    def _condemn(self, error: WireError) -> None:
        self._counters.wire_errors += 1
        self._drops.limited.warning(
            ("wire", self.source[0]),
            monotonic(),
            "connection %s:%d: closed: %s",
            *self.source,
            error,
        )
        self.close()
