"""A packet that comes again is not read again, and means the same all the same."""

from __future__ import annotations

import pytest

from clusterer.listener import ReceiveInfo
from clusterer.modules.ratelimit import receiver
from clusterer.modules.ratelimit.cluster import Stats
from clusterer.modules.ratelimit.gauges import Gauges
from clusterer.modules.ratelimit.receiver import Receiver
from clusterer.modules.ratelimit.table import Limits, PipeTable
from clusterer.payloads.ratelimit import PipeRecord, build_packets, read_records
from clusterer.wire import PacketBuilder


class Rig:
    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0
        self.table = PipeTable(Limits(), 10.0, 0.0, Gauges(), lambda *_: None)
        self.stats = Stats()
        self.receiver = Receiver(self.table, self.stats, lambda: self.now)

    def receive(self, machine_id: int, *records: PipeRecord) -> None:
        new = lambda: PacketBuilder("ratelimit", 0, machine_id)  # noqa: E731
        for packet in build_packets(new, records):
            self.receiver(0, ReceiveInfo(("127.0.0.1", 1), packet), machine_id)

    def remote(self, name: str = "calls") -> dict[int, int]:
        return dict(self.table.views(self.now)[name].remote)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    made = Rig()
    real = read_records

    def counting(packet: object) -> list[PipeRecord]:
        made.reads += 1
        return real(packet)  # type: ignore[arg-type]

    monkeypatch.setattr(receiver, "read_records", counting)
    return made


CALLS = PipeRecord(b"calls", 1, 50, 7)


def test_a_repeated_packet_is_read_twice_and_counted_each_time(rig: Rig) -> None:
    for _ in range(5):
        rig.receive(2, CALLS)
    assert rig.reads == 2
    assert rig.stats.packets_received == 5
    assert rig.remote() == {2: 7}


def test_a_repeated_packet_keeps_its_counters_fresh(rig: Rig) -> None:
    for rig.now in (0.0, 6.0, 9.9):
        rig.receive(2, CALLS)
    rig.now = 19.0
    assert rig.remote() == {2: 7}


def test_another_counter_or_machine_is_another_packet(rig: Rig) -> None:
    rig.receive(2, CALLS)
    rig.receive(2, CALLS._replace(counter=8))
    rig.receive(3, CALLS)
    assert rig.reads == 3
    assert rig.remote() == {2: 8, 3: 7}
    rig.receive(2, CALLS)
    assert rig.remote() == {2: 7, 3: 7}


def test_a_machine_that_was_forgotten_counts_again_with_its_next_packet(rig: Rig) -> None:
    for _ in range(3):
        rig.receive(2, CALLS)
    rig.table.forget_machine(2)
    assert rig.remote() == {}
    rig.receive(2, CALLS)
    assert rig.remote() == {2: 7}
    assert rig.reads == 3


def test_a_pipe_that_becomes_ours_keeps_our_limit(rig: Rig) -> None:
    for _ in range(3):
        rig.receive(2, CALLS)
    rig.table.check("calls", 99, 1, rig.now)
    rig.receive(2, CALLS)
    assert rig.table.views(rig.now)["calls"].limit == 99


def test_the_last_machine_to_send_a_foreign_pipe_says_its_limit(rig: Rig) -> None:
    other = CALLS._replace(limit=60)
    for _ in range(3):
        rig.receive(2, CALLS)
        rig.receive(3, other)
    rig.receive(2, CALLS)
    assert rig.table.views(rig.now)["calls"].limit == 50


def test_large_packets_are_read_every_time(rig: Rig) -> None:
    large = PipeRecord(b"x" * 1_000, 1, 1, 1), PipeRecord(b"y" * 1_024, 1, 1, 1)
    rig.receive(2, *large)
    rig.receive(2, *large)
    assert rig.reads == 2


def test_what_is_remembered_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MAX_KNOWN", 3)
    for counter in range(10):
        rig.receive(2, CALLS._replace(counter=counter))
    assert len(rig.receiver._known) <= 3


def test_a_pipe_that_went_in_between_is_not_remembered(rig: Rig) -> None:
    assert rig.table.receipt([CALLS]) is None
