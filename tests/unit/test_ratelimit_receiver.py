"""Received packets, from the frame to the counters that a check adds up."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import InvalidArgument
from clusterer.listener import ReceiveInfo
from clusterer.modules.ratelimit import Stats
from clusterer.modules.ratelimit.algorithms import Gauges
from clusterer.modules.ratelimit.replication import QUIET_S, Receiver
from clusterer.modules.ratelimit.table import Limits, PipeTable
from clusterer.payloads.message import as_text
from clusterer.payloads.ratelimit import PipeRecord, build_packets
from clusterer.wire import Packet, PacketBuilder
from tests.support.cluster import node

CALLS = PipeRecord(b"calls", 1, 50, 7)


class Rig:
    def __init__(self, limits: Limits | None = None, interval: float = 10.0) -> None:
        self.now = 0.0
        self.table = PipeTable(limits or Limits(), interval, 0.0, Gauges(), lambda *_: None)
        self.stats = Stats()
        self.receiver = Receiver(self.table, self.stats, lambda: self.now, lambda: [node(2)])

    def receive(self, machine_id: int, *records: PipeRecord) -> None:
        new = lambda: PacketBuilder("ratelimit", 0, machine_id)  # noqa: E731
        for packet in build_packets(new, records):
            self.receiver.take(0, ReceiveInfo(("127.0.0.1", 1), packet), machine_id)

    def remote(self, name: str = "calls") -> dict[int, int]:
        return dict(self.table.views(self.now)[name].remote)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_take_repeated_packet_counted_without_change(rig: Rig) -> None:
    for _ in range(5):
        rig.receive(2, CALLS)
    assert rig.stats.packets_received == 5
    assert rig.remote() == {2: 7}


def test_take_repeated_packet_keeps_counters_fresh(rig: Rig) -> None:
    for rig.now in (0.0, 6.0, 9.9):
        rig.receive(2, CALLS)
    rig.now = 19.0
    assert rig.remote() == {2: 7}


def test_take_newest_counter_of_each_node_applies(rig: Rig) -> None:
    rig.receive(2, CALLS)
    rig.receive(2, CALLS._replace(counter=8))
    rig.receive(3, CALLS)
    assert rig.remote() == {2: 8, 3: 7}
    rig.receive(2, CALLS)
    assert rig.remote() == {2: 7, 3: 7}


def test_check_uses_new_remote_counter_at_once(rig: Rig) -> None:
    verdicts = []
    for counter in (0, 499, 500, 0):
        rig.receive(2, CALLS._replace(counter=counter))
        verdicts.append(rig.table.check("calls", 50, 1, rig.now))
    assert verdicts == [True, False, False, True]


def test_take_after_module_timeout_counts_again(rig: Rig) -> None:
    for _ in range(3):
        rig.receive(2, CALLS)
    rig.table.forget_node(2)
    assert rig.remote() == {}
    rig.receive(2, CALLS)
    assert rig.remote() == {2: 7}


def test_take_own_pipe_keeps_own_limit(rig: Rig) -> None:
    for _ in range(3):
        rig.receive(2, CALLS)
    rig.table.check("calls", 99, 1, rig.now)
    rig.receive(2, CALLS)
    assert rig.table.views(rig.now)["calls"].limit == 99


def test_take_received_pipe_has_limit_of_last_packet(rig: Rig) -> None:
    other = CALLS._replace(limit=60)
    for _ in range(3):
        rig.receive(2, CALLS)
        rig.receive(3, other)
    rig.receive(2, CALLS)
    assert rig.table.views(rig.now)["calls"].limit == 50


def test_take_removed_pipe_starts_as_new() -> None:
    rig = Rig(Limits(idle_lifetime=15.0))
    rig.table.check("calls", 99, 1, rig.now)
    rig.receive(2, CALLS)
    rig.now = 20.0
    assert rig.table.views(rig.now) == {}
    rig.receive(2, CALLS._replace(counter=9))
    view = rig.table.views(rig.now)["calls"]
    assert (view.local, view.limit, dict(view.remote)) == (False, 50, {2: 9})


@pytest.mark.parametrize("size", [1, 63, 64, 65, 300, 1_024])
def test_take_names_of_any_length_distinct(rig: Rig, size: int) -> None:
    rig.receive(2, PipeRecord(b"x" * size, 1, 50, 1))
    rig.receive(2, PipeRecord(b"x" * size, 1, 50, 2), PipeRecord(b"y" * size + b"z", 1, 50, 3))
    views = rig.table.views(rig.now)
    assert dict(views["x" * size].remote) == {2: 2}
    assert rig.stats.pipes_refused == (size == 1_024)
    assert len(views) == 2 - rig.stats.pipes_refused


def test_check_name_of_wrong_type_raises_short_error(rig: Rig) -> None:
    wrong: Any = b"x" * 65_000
    with pytest.raises(InvalidArgument, match="name must be a str") as refused:
        rig.table.check(wrong, 50, 1, rig.now)
    assert len(str(refused.value)) < 200


def test_take_empty_name_kept_but_never_own(rig: Rig) -> None:
    packet = Packet("ratelimit", 0, 2, bytes(4) + struct.pack("<iii", 1, 50, 7))
    rig.receiver.take(0, ReceiveInfo(("127.0.0.1", 1), packet), 2)
    assert rig.remote("") == {2: 7}
    with pytest.raises(InvalidArgument, match="name must be a str"):
        rig.table.check("", 50, 1, rig.now)
    assert rig.table.own_pipes(rig.now) == []


def test_take_without_room_logged_at_limited_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(Limits(max_received_pipes=1))
    rig.receive(2, CALLS)
    for rig.now in (1.0, 2.0, 3.0, QUIET_S + 1):
        rig.receive(2, CALLS._replace(name=b"more"))
    rig.now += QUIET_S
    rig.receive(3, CALLS._replace(name=b"more"))
    lines = [record.message for record in caplog.records]
    assert lines[0] == "ratelimit node 2 at 127.0.0.1:1: no room for 1 pipes"
    assert lines[1] == f"{lines[0]} (and 2 more like this)"
    fields = [(vars(r)["machine_id"], vars(r).get("url")) for r in caplog.records]
    assert fields == [(2, "bin:127.0.0.1:1"), (2, "bin:127.0.0.1:1"), (3, None)]


@pytest.mark.parametrize("counter", [-1, -660_464, -(2**31)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_take_negative_counter_ignores_that_pipe_only(rig: Rig, counter: int, place: int) -> None:
    """HISTORY pipes that two OpenSIPS 2.2 nodes share reach such numbers."""
    rig.receive(2, PipeRecord(b"history", 5, 50, 3))
    pipes = [CALLS, CALLS._replace(name=b"more")]
    pipes.insert(place, PipeRecord(b"history", 5, 50, counter))
    rig.receive(2, *pipes)
    assert (rig.remote(), rig.remote("more"), rig.remote("history")) == ({2: 7}, {2: 7}, {2: 3})
    stats = rig.stats
    assert (stats.packets_received, stats.negative_counters, stats.payload_errors) == (2, 1, 0)
    assert stats.pipes_refused == 0
    rig.receive(2, PipeRecord(b"another", 5, 50, counter))
    assert "another" not in rig.table.views(rig.now)


def test_take_negative_counter_logged_at_limited_rate(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(Limits(max_received_pipes=1))
    bad = PipeRecord(b"hist", 5, 50, -5)
    for rig.now in (1.0, 2.0, 3.0, QUIET_S + 1):
        rig.receive(2, CALLS, bad, bad._replace(name=b"second"))
    line = (
        "ratelimit node 2 at 127.0.0.1:1: negative counter -5 of pipe 'hist' ignored, with those "
        "of 1 more pipes: HISTORY pipes that OpenSIPS 2.2 nodes share grow until they overflow"
    )
    lines = [record.message for record in caplog.records]
    assert lines == [line, f"{line} (and 2 more like this)"]
    assert rig.stats.negative_counters == 8


# -- any packets -------------------------------------------------------------------------------

BOUNDED = Limits(idle_lifetime=25.0, max_received_pipes=2, max_remote_counters=4)


class Model:
    """Pipes by name, without optimisations."""

    def __init__(self) -> None:
        self.now = 0.0
        self.beat = 0
        self.remote: dict[str, dict[int, tuple[int, float]]] = {}
        self.used: dict[str, float] = {}
        self.own: set[str] = set()
        self.refused = 0

    @property
    def counters(self) -> int:
        return sum(map(len, self.remote.values()))

    def check(self, name: str) -> None:
        self.tidy()
        self.remote.setdefault(name, {})
        self.own.add(name)
        self.used[name] = self.now

    def hear(self, machine_id: int, name: str, counter: int) -> None:
        self.tidy()
        if machine_id not in self.remote.get(name, {}):
            received = len(self.remote) - len(self.own)
            if self.counters >= BOUNDED.max_remote_counters or (
                name not in self.remote and received >= BOUNDED.max_received_pipes
            ):
                self.refused += 1
                return
        self.remote.setdefault(name, {})[machine_id] = counter, self.now
        if name not in self.own:
            self.used[name] = self.now

    def forget(self, machine_id: int) -> None:
        for remote in self.remote.values():
            remote.pop(machine_id, None)

    def tidy(self) -> None:
        """Remove old pipes and counters, once an interval."""
        if int(self.now // 10) == self.beat:
            return
        self.beat = int(self.now // 10)
        for name, remote in list(self.remote.items()):
            if self.now - self.used[name] >= BOUNDED.idle_lifetime:
                del self.remote[name]
                self.own.discard(name)
            self.remote |= {name: self.fresh(remote)} if name in self.remote else {}

    def fresh(self, remote: dict[int, tuple[int, float]]) -> dict[int, tuple[int, float]]:
        return {m: pair for m, pair in remote.items() if self.now - pair[1] < 10}


names = st.sampled_from([b"a", b"b", b"\xff", b"long" * 20])
pipes = st.builds(PipeRecord, names, st.integers(0, 5), st.integers(1, 9), st.integers(0, 9))
steps = st.one_of(
    st.tuples(st.just("hear"), st.integers(1, 3), st.lists(pipes, max_size=4)),
    st.tuples(st.just("forget"), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.125, 4.0, 11.0, 30.0])),
    st.tuples(st.just("check"), st.sampled_from(["a", "b", "\udcff"])),
)


@given(st.lists(steps, max_size=40))
def test_take_any_packets_match_plain_model(taken: list[Any]) -> None:
    """The index by wire name always has the same pipes as the table."""
    rig, model = Rig(BOUNDED), Model()
    for kind, *values in taken:
        if kind == "wait":
            rig.now = model.now = model.now + values[0]
        elif kind == "check":
            rig.table.check(values[0], 5, 1, rig.now)
            model.check(values[0])
        elif kind == "forget":
            rig.table.forget_node(values[0])
            model.forget(values[0])
        else:
            rig.receive(values[0], *values[1])
            model.tidy()
            for record in values[1]:
                model.hear(values[0], as_text(record.name), record.counter)
    views = rig.table.views(rig.now)
    model.tidy()
    assert {name: dict(view.remote) for name, view in views.items()} == {
        name: {m: value for m, (value, _) in model.fresh(remote).items()}
        for name, remote in model.remote.items()
    }
    assert {name for name, view in views.items() if view.local} == model.own
    assert rig.stats.pipes_refused == model.refused
    assert rig.table._remote_counters == model.counters


# -- threads -----------------------------------------------------------------------------------


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Make threads switch far more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient_threads")
def test_table_in_threads_loses_nothing() -> None:
    rig = Rig(Limits(idle_lifetime=3.0), interval=1.0)
    done = threading.Event()

    def check() -> None:
        while not done.is_set():
            for number in range(5):
                rig.table.check(f"p{number}", 50, 1, rig.now)

    def notice() -> None:
        while not done.is_set():
            rig.table.forget_node(2)
            rig.table.views(rig.now)

    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(work) for work in (check, check, notice)]
        try:
            for turn in range(3_000):
                rig.now = turn * 0.05
                pair = [CALLS._replace(name=name, counter=turn) for name in (b"p1", b"p7")]
                rig.receive(2 + turn % 3, *pair)
        finally:
            done.set()
    assert [other.result() for other in others] == [None] * 3
    assert rig.stats.packets_received == 3_000
    known = set(rig.table._by_wire_name.values())
    assert known == {*rig.table._own.values(), *rig.table._received.values()}
    assert rig.table._remote_counters == sum(len(pipe.remote) for pipe in known)
