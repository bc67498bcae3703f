"""The states of a peer in a sender session: one table, which `Peer.change` reads.

Theory of operation. A peer has at most one connection. The state says whether there is one, and
what the next step of the delivery is:

- *idle*: no connection, and no packet is known to wait. A batch may be offered: if the batch has
  packets for the peer, the peer becomes connecting, and the packets stay in the log.
- *guarded*: the worker that held the lease before is still closing its connection. A connection of
  this worker would overtake the bytes of the other one: no batch is offered until the guard ends.
- *connecting*: packets wait for a connection. The connector makes one when the gate is open and its
  retry time has come. A connection that fails leaves the peer connecting.
- *streaming*: the connection takes packets. A batch may be offered.
- *blocked*: the socket has not taken a batch whole, and the rest is in the outbox. No batch is
  offered until the outbox is empty.
- *closing*: the lease is released. The closer finishes the frame that was begun, and waits until
  the peer has read all bytes. The session never writes to this peer again.

::

                          packets wait             connected              socket full
    guarded ──────► idle ──────────────► connecting ──────────► streaming ───────────► blocked
           guard ended                                                    ◄───────────
                                                                           socket free

A connection that ends takes a peer to idle, or to connecting if packets have to be sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class PeerState(Enum):
    """What a sender session does with a peer."""

    IDLE = "idle"
    GUARDED = "guarded"
    CONNECTING = "connecting"
    STREAMING = "streaming"
    BLOCKED = "blocked"
    CLOSING = "closing"


class PeerEvent(Enum):
    """What can happen to a peer."""

    GUARD_ENDED = "guard ended"
    """The closing guard of the worker before is gone, or has expired."""
    PACKETS_WAIT = "packets wait"
    """The log has packets for the peer, and there is no connection."""
    CONNECTED = "connected"
    SOCKET_FULL = "socket full"
    """The socket has not taken a batch whole."""
    SOCKET_FREE = "socket free"
    """The socket has taken the whole outbox."""
    ENDED = "ended"
    """The connection is closed, and no packet has to be sent again."""
    BROKEN = "broken"
    """The connection is closed or was not made, and packets have to be sent (again)."""
    RELEASED = "released"
    """The worker has released the lease, and the connection is open."""


_E, _S = PeerEvent, PeerState

TRANSITIONS: Mapping[tuple[PeerState, PeerEvent], PeerState] = MappingProxyType(
    {
        (_S.GUARDED, _E.GUARD_ENDED): _S.IDLE,
        (_S.IDLE, _E.PACKETS_WAIT): _S.CONNECTING,
        (_S.CONNECTING, _E.PACKETS_WAIT): _S.CONNECTING,
        (_S.CONNECTING, _E.CONNECTED): _S.STREAMING,
        (_S.CONNECTING, _E.BROKEN): _S.CONNECTING,
        (_S.CONNECTING, _E.ENDED): _S.IDLE,
        (_S.STREAMING, _E.SOCKET_FULL): _S.BLOCKED,
        (_S.STREAMING, _E.BROKEN): _S.CONNECTING,
        (_S.STREAMING, _E.ENDED): _S.IDLE,
        (_S.STREAMING, _E.RELEASED): _S.CLOSING,
        (_S.BLOCKED, _E.SOCKET_FREE): _S.STREAMING,
        (_S.BLOCKED, _E.BROKEN): _S.CONNECTING,
        (_S.BLOCKED, _E.ENDED): _S.IDLE,
        (_S.BLOCKED, _E.RELEASED): _S.CLOSING,
        (_S.CLOSING, _E.SOCKET_FREE): _S.CLOSING,
        # The next worker repeats the packets: this session makes no connection any more.
        (_S.CLOSING, _E.BROKEN): _S.IDLE,
        (_S.CLOSING, _E.ENDED): _S.IDLE,
    }
)
"""The next state. A pair that is missing cannot happen, and raises KeyError."""
