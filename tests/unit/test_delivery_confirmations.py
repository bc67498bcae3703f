"""Which attempts are said as acks: those that began after the verdict fell, and worked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from clusterer.delivery import confirmations
from clusterer.delivery.confirmations import REMEMBER_S, Confirmations
from clusterer.delivery.link import Link
from clusterer.delivery.peer import Peer
from clusterer.delivery.peer_states import PeerEvent
from clusterer.delivery.session import SenderSession
from clusterer.membership import Node, State
from clusterer.store.client import Clock
from clusterer.store.suspicions import SuspicionStore
from tests.support.cluster import node

UP = replace(node(2), epoch=4, version=4)
PROBING = replace(UP, state=State.PROBING, no_tries=1, version=5)
DISABLED = replace(PROBING, no_tries=3, version=7)


@dataclass
class Sender:
    """A session, as far as an ack names it."""

    sender: int = 1


class Connection:
    """A link whose peer's kernel has not acknowledged some bytes."""

    def __init__(self) -> None:
        self.unacked = 0

    def unacknowledged(self) -> int:
        return self.unacked


class Suspicions:
    """Takes acks; ``counts`` is the answer to each."""

    def __init__(self) -> None:
        self.counts = True
        self.acks: list[tuple[int, bool]] = []

    def ack(self, node: Node, who: int, by: str, *, bytes_taken: bool, began_ms: int) -> bool:
        assert (who, by) == (1, "delivery of sender 1")
        self.acks.append((began_ms, bytes_taken))
        return self.counts


class Scene:
    """A connected peer whose node has a verdict that is not up. Times: seconds after 100 s."""

    def __init__(self, seen: Node) -> None:
        clock = Clock()
        clock.tell(0, 100.0)
        self.suspicions = Suspicions()
        self.watch = Confirmations(cast(SuspicionStore, self.suspicions), clock)
        self.session = cast(SenderSession, Sender())
        self.link = Connection()
        self.peer = Peer(seen, 0, 0, guarded=False)
        self.peer.attempted, self.peer.link = seen, cast(Link, self.link)
        self.peer.change(PeerEvent.PACKETS_WAIT)
        self.peer.change(PeerEvent.CONNECTED)

    @property
    def acks(self) -> list[tuple[int, bool]]:
        return self.suspicions.acks

    def fall(self, to: Node, at_s: float) -> None:
        self.peer.node = to
        self.watch.doubt(self.session, self.peer, 100 + at_s)

    def write(self, size: int, unacked: int) -> None:
        cast(Any, self.peer).written += size
        self.link.unacked = unacked

    def look(self, at_s: float) -> None:
        self.watch.look(100 + at_s)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmations, "is_local", lambda host: False)


@pytest.mark.parametrize(
    ("seen", "now", "acked"),
    [
        (UP, UP, False),
        (UP, PROBING, False),
        (PROBING, PROBING, True),
        (PROBING, DISABLED, False),
        (DISABLED, DISABLED, False),
        (replace(PROBING, epoch=3), PROBING, False),
    ],
)
def test_connection_is_ack_if_begun_while_node_was_probing(
    seen: Node, now: Node, *, acked: bool
) -> None:
    scene = Scene(seen)
    scene.peer.node = now
    scene.watch.connected(scene.session, scene.peer, 100.5, 100.7)
    assert scene.acks == ([(500, False)] if acked else [])


@pytest.mark.parametrize("to", [PROBING, DISABLED])
def test_bytes_are_ack_once_the_kernel_has_them(to: Node) -> None:
    scene = Scene(UP)
    scene.write(50, unacked=0)
    scene.fall(to, 1.0)
    scene.look(2.0)
    assert not scene.acks, "written before the verdict fell"
    scene.write(10, unacked=10)
    scene.look(2.5)
    assert not scene.acks
    scene.link.unacked = 0
    scene.look(2.6)
    scene.look(2.7)
    assert scene.acks == [(2000, True)], "once, begun at the last look before the write"


def test_bytes_acknowledged_late_are_no_evidence() -> None:
    scene = Scene(UP)
    scene.fall(PROBING, 0.0)
    scene.write(10, unacked=10)
    scene.look(REMEMBER_S + 0.1)
    scene.link.unacked = 0
    scene.look(REMEMBER_S + 0.2)
    assert not scene.acks
    scene.write(10, unacked=0)
    scene.look(REMEMBER_S + 0.3)
    assert len(scene.acks) == 1


def test_ack_that_does_not_count_is_said_again() -> None:
    scene = Scene(UP)
    scene.suspicions.counts = False
    scene.fall(PROBING, 0.0)
    for at in (1, 2):
        scene.write(10, unacked=0)
        scene.look(at)
        scene.look(at + 0.5)
    assert len(scene.acks) == 2


@pytest.mark.parametrize(
    "end",
    [
        lambda scene: setattr(scene.peer, "node", UP),
        lambda scene: scene.peer.forget_link(),
    ],
)
def test_connection_is_watched_while_verdict_is_not_up(end: Callable[[Scene], object]) -> None:
    scene = Scene(UP)
    scene.fall(PROBING, 0.0)
    end(scene)
    scene.look(1.0)
    scene.peer.node, scene.peer.link = PROBING, cast(Link, scene.link)
    scene.write(10, unacked=0)
    scene.look(1.1)
    assert not scene.acks


def test_node_of_the_own_host_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmations, "is_local", lambda host: True)
    scene = Scene(PROBING)
    scene.watch.connected(scene.session, scene.peer, 100.5, 100.7)
    scene.fall(PROBING, 1.0)
    scene.write(10, unacked=0)
    scene.look(1.1)
    assert not scene.acks
