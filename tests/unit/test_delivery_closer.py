"""Connections of a released log: the bytes that the closer may still write, and what it records."""

from __future__ import annotations

import socket
from time import monotonic

import pytest

from clusterer.delivery.batch import Batch, Outbox
from clusterer.delivery.closer import Closer
from clusterer.delivery.link import Link
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import PeerEvent
from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store.deliveries import GUARD_MS
from clusterer.store.sessions import SessionStore
from tests.support.cluster import node
from tests.support.frames import frame
from tests.support.processes import EVENTUALLY_S

FRAME = frame(0)
BEGUN = 5
"""Bytes of the frame that are written when the log is released."""


def blocked_peer(sock: socket.socket, written: int) -> Peer:
    """Return the peer of a cluster's first packet, of which the socket has taken some bytes."""
    peer = Peer(node(2), 0, 0, guarded=False)
    for event in (PeerEvent.PACKETS_WAIT, PeerEvent.CONNECTED, PeerEvent.SOCKET_FULL):
        peer.change(event)
    sock.setblocking(False)
    peer.link = Link.__new__(Link)
    peer.link.sock, peer.link.unasked = sock, 0
    peer.link.since = peer.link.progress_at = monotonic()
    fields = [b"cluster", b"1", b"protocol", b"bin", b"n", b"1", b"packets", b"1"]
    batch = Batch([(b"1-1", [*fields, b"frames", FRAME])], 0)
    frames = batch.clusters[ClusterKey(1, "bin")]
    peer.outbox = Outbox(frames, frames.data, written, batch.last)
    peer.sent_offset, peer.sent_n, peer.written = 1, 1, written
    peer.release()
    return peer


@pytest.mark.parametrize(("guard_is_up", "expected"), [(True, FRAME[BEGUN:]), (False, b"")])
def test_closer_after_late_reply_writes_only_with_its_guard(
    monkeypatch: pytest.MonkeyPatch, guard_is_up: bool, expected: bytes
) -> None:
    """The worker was stopped after the release: the next worker may be connected already."""
    monkeypatch.setattr(SessionStore, "renew_guard", lambda *_: guard_is_up)
    monkeypatch.setattr(SessionStore, "end_guard", lambda *_: True)
    ours, theirs = socket.socketpair()
    closer = Closer(Settings(send_timeout=5.0), "queue", "token")
    with theirs:
        theirs.settimeout(EVENTUALLY_S)
        closer.take(1, [blocked_peer(ours, BEGUN)], monotonic() - GUARD_MS / 1000)
        assert theirs.makefile("rb").read() == expected
    closer.join()


def test_closer_before_first_byte_leaves_packet_count() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = blocked_peer(ours, 0)
        assert peer.flush()
        assert (peer.move().sequence, peer.move().n) == (0, 0)
