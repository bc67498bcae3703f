"""The payload of ratelimit packets, against captured frames and hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import WireError
from clusterer.payloads.ratelimit import PipeRecord, build_packets, read_records
from clusterer.wire import FrameDecoder, Packet, PacketBuilder
from tests.support.vectors import Captured, captured_frames, captured_stream

CAPTURED = [captured for captured in captured_frames() if captured.module == "ratelimit"]
CALLS = PipeRecord(b"calls", 1, 100, 0)


def builder_of(machine_id: int) -> PacketBuilder:
    return PacketBuilder("ratelimit", 0, machine_id)


def new_packet() -> PacketBuilder:
    return builder_of(1)


def packet_of(*fields: int | bytes) -> Packet:
    builder = new_packet()
    for field in fields:
        _ = builder.push_int(field) if isinstance(field, int) else builder.push_str(field)
    return builder.build()


def cut(packet: Packet, size: int) -> Packet:
    return packet._replace(payload=packet.payload[:-size])


@pytest.mark.parametrize("captured", CAPTURED, ids=lambda c: f"{c.source}-{len(c.frame)}")
def test_captured_packet_encodes_to_same_bytes(captured: Captured) -> None:
    (packet,) = FrameDecoder().feed(captured.frame)
    assert packet.machine_id is not None
    records = read_records(packet)
    assert records in ([], [CALLS])
    (again,) = build_packets(lambda: builder_of(packet.machine_id or 0), records)
    assert again.encode() == captured.frame


def test_captured_stream_all_packets_decode() -> None:
    packets = [p for p in FrameDecoder().feed(captured_stream()[0]) if p.module == "ratelimit"]
    assert len(packets) > 100
    assert {name for packet in packets for name, *_ in read_records(packet)} == {b"calls"}


def test_build_packets_no_pipe_yields_empty_packet() -> None:
    (heartbeat,) = build_packets(new_packet, [])
    assert heartbeat == Packet("ratelimit", 0, 1)
    assert read_records(heartbeat) == []


names = st.binary(min_size=1, max_size=200)
ints = st.integers(-(2**31), 2**31 - 1)
records = st.builds(PipeRecord, names, st.integers(0, 5), ints, ints)


@given(st.lists(records, max_size=200))
def test_build_packets_any_pipes_round_trip_in_bounded_size(sent: list[PipeRecord]) -> None:
    packets = list(build_packets(new_packet, sent))
    assert [record for packet in packets for record in read_records(packet)] == sent
    sizes = [len(packet.encode()) for packet in packets]
    assert all(size <= 1_400 + 200 + 16 for size in sizes)
    assert all(size > 1_400 for size in sizes[:-1])
    assert len(packets) == 1 or packets[-1].payload


def test_build_packets_past_1400_bytes_starts_another() -> None:
    room = 1_400 - 33 - 16
    exactly = PipeRecord(b"x" * room, 1, 1, 1)
    assert len(list(build_packets(new_packet, [exactly, CALLS]))) == 1
    longer = PipeRecord(b"x" * (room + 1), 1, 1, 1)
    assert len(list(build_packets(new_packet, [longer, CALLS]))) == 2


def test_counter_beyond_31_bits_sent_as_largest() -> None:
    (packet,) = build_packets(new_packet, [PipeRecord(b"x", 1, 1, 2**40)])
    assert read_records(packet) == [(b"x", 1, 1, 2**31 - 1)]


@pytest.mark.parametrize(
    ("packet", "fault"),
    [
        (packet_of(b"a"), "pipe b'a': ends before field 'algorithm'"),
        (packet_of(b"a", 1), "pipe b'a': ends before field 'limit'"),
        (packet_of(b"a", 1, 100), "pipe b'a': ends before field 'counter'"),
        (packet_of(b"a", 1, 100, 5, b"b"), "pipe b'b': ends before field 'algorithm'"),
        (packet_of(b"a", 6, 100, 5), "pipe b'a': field 'algorithm' is 6, which is unknown"),
        (packet_of(b"a", -1, 100, 5), "pipe b'a': field 'algorithm' is -1, which is unknown"),
        (packet_of(-1), "field 'name': string cut off: length -1"),
        (packet_of(100), "field 'name': string cut off: length 100"),
        (cut(packet_of(b"a", 1, 100, 5), 1), "pipe b'a': field 'counter': integer cut off: 3 of"),
        (cut(packet_of(b"a", 1, 100, 5), 6), "pipe b'a': field 'limit': integer cut off: 2 of 4"),
        (Packet("ratelimit", 0, 1, b"\1"), "field 'name': integer cut off"),
    ],
)
def test_payload_cut_off_raises_wire_error(packet: Packet, fault: str) -> None:
    with pytest.raises(WireError, match=f"^ratelimit pipe counters: {fault}"):
        read_records(packet)


@given(st.binary(max_size=80))
def test_payload_hostile_gives_pipes_or_wire_error(payload: bytes) -> None:
    try:
        found = read_records(Packet("ratelimit", 0, 1, payload))
    except WireError:
        return
    (again,) = build_packets(new_packet, found)
    assert again.payload == payload
