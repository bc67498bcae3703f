"""The state table of a peer: every pair of state and event, and the states of a whole delivery."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import TRANSITIONS, PeerEvent, PeerState
from clusterer.membership import State
from tests.support.cluster import node

IDLE, GUARDED, CONNECTING, STREAMING, BLOCKED, CLOSING = PeerState

EXPECTED: dict[PeerEvent, dict[PeerState, PeerState]] = {
    PeerEvent.GUARD_ENDED: {GUARDED: IDLE},
    PeerEvent.PACKETS_WAIT: {IDLE: CONNECTING, CONNECTING: CONNECTING},
    PeerEvent.CONNECTED: {CONNECTING: STREAMING},
    PeerEvent.SOCKET_FULL: {STREAMING: BLOCKED},
    PeerEvent.SOCKET_FREE: {BLOCKED: STREAMING, CLOSING: CLOSING},
    PeerEvent.ENDED: dict.fromkeys((CONNECTING, STREAMING, BLOCKED, CLOSING), IDLE),
    PeerEvent.BROKEN: {
        **dict.fromkeys((CONNECTING, STREAMING, BLOCKED), CONNECTING),
        CLOSING: IDLE,
    },
    PeerEvent.RELEASED: {STREAMING: CLOSING, BLOCKED: CLOSING},
}


@pytest.mark.parametrize(("state", "event"), list(product(PeerState, PeerEvent)))
def test_peer_state_after_event_is_that_of_table(state: PeerState, event: PeerEvent) -> None:
    assert TRANSITIONS.get((state, event)) is EXPECTED[event].get(state)


def test_peer_table_leads_from_idle_to_each_state_but_guarded() -> None:
    reached = {IDLE}
    for _ in PeerState:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(PeerState) - {GUARDED}


@pytest.mark.parametrize("state", list(PeerState))
def test_peer_in_any_state_gets_back_to_idle(state: PeerState) -> None:
    reached = {state}
    for _ in PeerState:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert IDLE in reached


def peer(offset: int, *, guarded: bool = False) -> Peer:
    return Peer(node(2), offset, offset, guarded=guarded)


def test_peer_committed_offset_behind_sent_offset_is_recorded() -> None:
    found = peer(3)
    found.skip_to(5, 5)
    assert not found.is_recorded()
    assert (found.record().sequence, found.is_recorded()) == (5, True)


def test_peer_committed_offset_beyond_sent_offset_raises() -> None:
    found = peer(3)
    found.committed_offset = 4
    with pytest.raises(AssertionError):
        found.record()


@pytest.mark.parametrize(
    ("guarded", "up", "replay", "ready"),
    [
        (False, True, False, True),
        (False, True, True, True),
        (False, False, False, True),
        (False, False, True, False),
        (True, True, False, False),
        (True, False, False, False),
    ],
)
def test_peer_without_connection_takes_batches_unless_guarded(
    guarded: bool, up: bool, replay: bool, ready: bool
) -> None:
    found = peer(0, guarded=guarded)
    found.node = replace(found.node, state=State.UP if up else State.DOWN)
    found.judge(None, 0)
    assert found.ready(replay) is ready


@pytest.mark.parametrize(
    ("state", "connects", "ready"), [(State.UP, True, False), (State.DOWN, False, True)]
)
def test_peer_with_waiting_packets_connects_or_skips(
    state: State, connects: bool, ready: bool
) -> None:
    found = peer(0)
    found.change(PeerEvent.PACKETS_WAIT)
    found.node = replace(found.node, state=state)
    found.judge(None, 0)
    assert (found.lacks_link, found.ready(replay=False)) == (connects, ready)
