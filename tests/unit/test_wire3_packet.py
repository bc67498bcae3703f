"""Packets of OpenSIPS 3.x: fields, builders, and values that no frame can have."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import InvalidArgument
from clusterer.wire import (
    FieldReader3,
    FrameDecoder3,
    FrameTooLarge,
    Packet,
    PacketBuilder3,
    Trailer,
    WireError,
)
from clusterer.wire.frame3 import addressed
from clusterer.wire.layout3 import BRIDGE, EXTRA, INTERNAL

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
GOOD = Packet("mod-repl", 7, 21, b"x", 1, Trailer(1, 22))


# -- reading -----------------------------------------------------------------------------------


def test_reader3_string_has_length_of_two_bytes() -> None:
    reader = FieldReader3(b"\x03\x00abc\x00\x00\x07\x00\x00\x00")
    assert (reader.pop_str(), reader.pop_str(), reader.pop_int()) == (b"abc", b"", 7)
    assert reader.pop_str() is None
    assert reader.pop_int() is None


def test_reader3_longest_string_pops() -> None:
    assert FieldReader3(b"\xff\xff" + bytes(65_535)).pop_str() == bytes(65_535)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x03", "length of a string cut off: 1 of 2 bytes at field offset 0"),
        (b"\x03\x00ab", "string cut off: length 3, 2 bytes left at field offset 0"),
        (b"\xff\xffab", "string cut off: length 65535, 2 bytes left at field offset 0"),
    ],
)
def test_reader3_string_cut_off_raises_and_stays(data: bytes, message: str) -> None:
    reader = FieldReader3(data)
    for _ in range(2):
        with pytest.raises(WireError, match=message):
            reader.pop_str()
    assert reader.remaining == len(data)


fields = st.lists(st.one_of(st.integers(INT_MIN, INT_MAX), st.binary(max_size=50)), max_size=30)


@given(fields, st.sampled_from(["mod-repl", INTERNAL, EXTRA]))
def test_builder3_any_fields_pop_in_order(pushed: list[int | bytes], name: str) -> None:
    builder = PacketBuilder3(name, 4, 21, 2, cluster_id=3)
    for value in pushed:
        if isinstance(value, int):
            builder.push_int(value)
        else:
            builder.push_str(value)
    packet = builder.build()
    (back,) = FrameDecoder3().feed(packet.encode())
    assert back == packet
    assert builder.size == len(packet.encode())
    reader = back.fields()
    assert [reader.pop_int() if isinstance(v, int) else reader.pop_str() for v in pushed] == pushed
    assert reader.remaining == 0


# -- building ----------------------------------------------------------------------------------


def test_builder3_packet_names_cluster_and_no_destination_yet() -> None:
    packet = PacketBuilder3("mod-repl", 7, 21, 4, cluster_id=3).push_str("é").push_int(-1).build()
    payload = b"\x02\x00\xc3\xa9\xff\xff\xff\xff"
    assert packet == Packet("mod-repl", 7, 21, payload, 4, Trailer(3, 0))
    assert PacketBuilder3(INTERNAL, 0, 21).build() == Packet(INTERNAL, 0, 21, b"", 1, Trailer(1))


@pytest.mark.parametrize("name", ["mod-repl", INTERNAL])
def test_builder3_largest_frame_is_that_of_40(name: str) -> None:
    builder = PacketBuilder3(name, 0, 1)
    room = 65_515 - builder.size - 2
    with pytest.raises(FrameTooLarge, match="at most 65515"):
        builder.push_str(bytes(room + 1))
    frame = builder.push_str(bytes(room)).build().encode()
    assert len(frame) == 65_515
    with pytest.raises(FrameTooLarge):
        builder.push_str(b"")
    with pytest.raises(FrameTooLarge):
        builder.push_int(1)
    assert builder.build().encode() == frame


def test_builder3_string_longer_than_its_length_raises() -> None:
    with pytest.raises(FrameTooLarge):
        PacketBuilder3("mod-repl", 0, 1).push_str(bytes(65_536))


@pytest.mark.parametrize("name", ["", "é", "x" * 256, "a\udcff", None, 7, b"mod"])
def test_builder3_name_that_is_none_raises(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="capability must be 1 to 255 ASCII characters"):
        PacketBuilder3(name, 0, 1)


@pytest.mark.parametrize(
    "numbers",
    [
        {"type": 2**31},
        {"type": True},
        {"machine_id": -(2**31) - 1},
        {"machine_id": None},
        {"version": 2**15},
        {"cluster_id": 2**31},
        {"cluster_id": "1"},
    ],
)
def test_builder3_number_out_of_range_raises(numbers: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"type": 0, "machine_id": 1} | numbers
    with pytest.raises(InvalidArgument, match="must be an integer"):
        PacketBuilder3("mod-repl", **arguments)


# -- encoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"module": ""},
        {"module": None},
        {"module": "\ud800"},
        {"type": 2**31},
        {"type": None},
        {"machine_id": None},
        {"machine_id": 2**31},
        {"version": -(2**15) - 1},
        {"trailer": Trailer(2**31, 22)},
        {"trailer": Trailer(1, 2**31)},
        {"trailer": Trailer(1, BRIDGE)},
        {"trailer": Trailer(1, BRIDGE, 7)},
        {"trailer": Trailer(1, BRIDGE, 2**31, 4)},
        {"trailer": Trailer(None)},
        {"trailer": Trailer(None), "machine_id": None, "payload": bytes(12)},
        {"trailer": Trailer(None, 22), "machine_id": None},
    ],
)
def test_encode3_value_that_no_frame_has_raises(changes: dict[str, Any]) -> None:
    assert GOOD.encode()
    with pytest.raises(InvalidArgument):
        GOOD._replace(**changes).encode()


def test_encode3_frame_above_wire_limit_raises() -> None:
    most = 65_535 - 12 - len("mod-repl") - 4 - 12
    assert len(GOOD._replace(payload=bytes(most)).encode()) == 65_535
    with pytest.raises(FrameTooLarge, match=r"takes 65536 bytes.* at most 65535"):
        GOOD._replace(payload=bytes(most + 1)).encode()


def test_encode3_without_destination_writes_0() -> None:
    frame = GOOD._replace(trailer=Trailer(1)).encode()
    assert frame == GOOD._replace(trailer=Trailer(1, 0)).encode()


@given(st.lists(st.binary(max_size=40), max_size=9), st.integers(INT_MIN, INT_MAX))
def test_addressed_changes_destination_of_each_frame(payloads: list[bytes], node: int) -> None:
    packets = [GOOD._replace(payload=payload) for payload in payloads]
    frames = [packet.encode() for packet in packets]
    ends = [sum(map(len, frames[: count + 1])) for count in range(len(frames))]
    made = addressed(b"".join(frames), ends, node)
    assert made == b"".join(frame[:-4] + struct.pack("<i", node) for frame in frames)
