"""Entries of a node that is gone, or was restarted and lost its state."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.modules.absence import STALE_S
from clusterer.modules.dialog import Change, Dialogs, Reason
from clusterer.modules.usrloc import Usrloc
from clusterer.payloads import Message, ProfileCount, ProfileCounts
from clusterer.settings import Settings
from tests.support.cluster import node
from tests.support.fake_cluster import FakeClock, FakeCluster
from tests.support.observing import CAPTURED_AT, call, contact, update

LIMIT = 60.0


class Rig:
    """A dialog observer of cluster 7, whose nodes 2 and 3 are up."""

    def __init__(self, **options: Any) -> None:
        self.cluster = FakeCluster()
        self.cluster.nodes = [node(2, cluster_id=7), node(3, cluster_id=7)]
        self.clock = FakeClock()
        self.dialogs = Dialogs(
            self.cluster, 7, clock=self.clock, unix_clock=FakeClock(CAPTURED_AT), **options
        )
        self.told: list[Change[Any]] = []
        self.dialogs.on_call(self.told.append)
        self.dialogs.start()
        self.dialogs.stop()

    def take(self, message: Message, machine_id: int = 2) -> None:
        self.cluster.deliver(message.encode(machine_id))

    def only_up(self, *machine_ids: int) -> None:
        self.cluster.nodes = [node(each, cluster_id=7) for each in machine_ids]

    def passes(self, seconds: float) -> None:
        """Advance the clock, with one call of `expire` a second."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.dialogs.expire()

    @property
    def ids(self) -> list[str]:
        return [found.call_id for found in self.dialogs.calls()]


@pytest.mark.parametrize("observer", [Dialogs, Usrloc])
def test_observer_of_cluster_of_3x_is_refused(observer: type[Dialogs | Usrloc]) -> None:
    cluster = FakeCluster()
    cluster.settings = Settings(opensips_3_clusters="7")
    with pytest.raises(InvalidArgument, match=r"^cluster 7 is one of OpenSIPS 3\.x "):
        observer(cluster, 7)
    observer(cluster, 8)


@pytest.fixture
def rig() -> Rig:
    return Rig(end_calls_after=LIMIT)


def test_forget_removes_calls_and_counts_of_node() -> None:
    rig = Rig()
    rig.take(call(b"a"), 2)
    rig.take(call(b"b"), 3)
    rig.take(call(b"taken over"), 2)
    rig.take(update(b"taken over"), 3)
    rig.take(ProfileCounts((ProfileCount(b"caller", None, 1),)), 2)
    rig.take(ProfileCounts((ProfileCount(b"caller", None, 4),)), 3)
    assert rig.dialogs.forget(2) == 2
    assert rig.ids == ["b", "taken over"]
    assert rig.dialogs.profiles() == {("caller", None): 4}
    assert (rig.told[-1].kind, rig.told[-1].reason) == ("removed", Reason.FORGOTTEN)
    assert rig.dialogs.forget(2) == rig.dialogs.forget(9) == 0
    rig.take(call(b"a"), 2)
    assert "a" in rig.ids


def test_forget_removes_contacts_of_node() -> None:
    cluster = FakeCluster()
    usrloc = Usrloc(cluster, 7, unix_clock=FakeClock(CAPTURED_AT))
    told: list[Change[Any]] = []
    usrloc.on_contact(told.append)
    with usrloc:
        cluster.deliver(contact(b"sip:a").encode(2))
        cluster.deliver(contact(b"sip:b").encode(3))
        assert usrloc.forget(2) == 1
        assert [found.uri for found in usrloc.contacts()] == ["sip:b"]
        assert told[-1].reason is Reason.FORGOTTEN


@pytest.mark.parametrize("machine_id", [0, -1, True, "2", None])
def test_forget_invalid_machine_id_raises(machine_id: Any) -> None:
    with pytest.raises(InvalidArgument, match="machine_id"):
        Rig().dialogs.forget(machine_id)


def test_calls_of_node_not_up_for_limit_end(rig: Rig) -> None:
    rig.take(call(b"a"), 2)
    rig.take(call(b"b"), 3)
    rig.passes(5)
    rig.only_up(3)
    rig.passes(LIMIT)
    assert rig.ids == ["a", "b"]
    rig.passes(1)
    assert rig.ids == ["b"]
    assert (rig.told[-1].kind, rig.told[-1].reason) == ("removed", Reason.NOT_UP)
    rig.only_up(2, 3)
    rig.take(call(b"c"), 2)
    rig.passes(2 * LIMIT)
    assert rig.ids == ["b", "c"]


def test_calls_without_end_calls_after_stay() -> None:
    rig = Rig()
    rig.take(call())
    rig.only_up()
    rig.passes(1_000)
    assert rig.ids == ["call-1"]


def test_calls_of_node_up_in_between_stay(rig: Rig) -> None:
    rig.take(call())
    for _ in range(3):
        rig.only_up(3)
        rig.passes(LIMIT - 1)
        rig.only_up(2, 3)
        rig.passes(1)
    assert rig.ids == ["call-1"]


def test_calls_of_node_that_sends_stay(rig: Rig) -> None:
    """The path to the node is broken, the path from the node is not."""
    rig.only_up(3)
    for number in range(3):
        rig.take(call(b"%d" % number))
        rig.passes(LIMIT - 1)
    assert len(rig.ids) == 3
    rig.passes(2)
    assert rig.ids == []


def test_profile_counts_ignore_end_calls_after(rig: Rig) -> None:
    rig.only_up()
    rig.passes(LIMIT)
    rig.take(ProfileCounts((ProfileCount(b"caller", None, 1),)))
    rig.passes(2)
    assert rig.dialogs.profiles() == {("caller", None): 1}


@pytest.mark.parametrize("away", ["stale", "never known"])
def test_calls_while_redis_unavailable_stay(rig: Rig, away: str, monkeypatch: Any) -> None:
    rig.take(call())
    rig.only_up()
    rig.passes(LIMIT - 1)
    with monkeypatch.context() as patch:
        if away == "stale":
            rig.cluster.age_s = STALE_S + 0.1
        else:
            patch.setattr(rig.cluster, "get_nodes", _raise)
        rig.passes(2 * LIMIT)
        rig.cluster.age_s = 0.0
    rig.passes(LIMIT)
    assert rig.ids == ["call-1"]
    rig.passes(1)
    assert rig.ids == []


def _raise(*_: object) -> None:
    raise StateUnavailable("Redis is away")


@pytest.mark.parametrize("limit", [-1, math.inf, math.nan])
def test_end_calls_after_invalid_raises(limit: float) -> None:
    with pytest.raises(InvalidArgument, match="end_calls_after"):
        Rig(end_calls_after=limit)
