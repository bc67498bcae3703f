"""Packets: fields in order, builders that reject values beyond a frame."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import InvalidArgument
from clusterer.wire import (
    FieldReader,
    FrameDecoder,
    FrameTooLarge,
    Packet,
    PacketBuilder,
    WireError,
)

INT_MIN, INT_MAX = -(2**31), 2**31 - 1


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def test_packet_of_module_with_own_type_has_same_frame() -> None:
    class Name(str):
        __slots__ = ()

    assert Packet(Name("mod"), 1, 2, b"x").encode() == Packet("mod", 1, 2, b"x").encode()


# -- reading -----------------------------------------------------------------------------------


def test_fields_start_after_machine_id() -> None:
    frame = PacketBuilder("mod", 1, 42).push_int(7).push_str(b"x").build().encode()
    (packet,) = FrameDecoder().feed(frame)
    fields = packet.fields()
    assert (fields.pop_int(), fields.pop_str(), fields.pop_int()) == (7, b"x", None)


def test_fields_each_reader_starts_at_first_field() -> None:
    packet = Packet("mod", 1, 2, ints(3))
    assert packet.fields().pop_int() == packet.fields().pop_int() == 3


def test_pop_nothing_left_is_none() -> None:
    reader = FieldReader(b"")
    assert reader.pop_int() is None
    assert reader.pop_str() is None


def test_pop_empty_string_is_not_none() -> None:
    reader = FieldReader(ints(0))
    assert reader.pop_str() == b""
    assert reader.pop_str() is None


@pytest.mark.parametrize("value", [INT_MIN, -1, 0, 1, INT_MAX])
def test_pop_int_signed(value: int) -> None:
    assert FieldReader(ints(value)).pop_int() == value


@pytest.mark.parametrize("left", [1, 2, 3])
def test_pop_int_cut_off_raises_each_time(left: int) -> None:
    reader = FieldReader(ints(9) + b"\1" * left)
    assert reader.pop_int() == 9
    for pop in (reader.pop_int, reader.pop_str, reader.pop_int):
        with pytest.raises(WireError, match=f"{left} of 4 bytes at field offset 4"):
            pop()
    assert reader.remaining == left


@pytest.mark.parametrize("length", [-1, INT_MIN, 4, 5, INT_MAX])
def test_pop_str_past_frame_raises_and_stays(length: int) -> None:
    reader = FieldReader(ints(length) + b"abc")
    for _ in range(2):
        with pytest.raises(WireError, match=f"string cut off: length {length}, 3 bytes left"):
            reader.pop_str()
    assert reader.remaining == 7
    assert reader.pop_int() == length


def test_pop_str_bytes_unchanged() -> None:
    every = bytes(range(256))
    assert FieldReader(ints(256) + every).pop_str() == every


fields = st.lists(st.one_of(st.integers(INT_MIN, INT_MAX), st.binary(max_size=50)), max_size=30)


@given(fields)
def test_push_any_fields_pop_in_order(pushed: list[int | bytes]) -> None:
    builder = PacketBuilder("mod", 0, 1)
    for value in pushed:
        if isinstance(value, int):
            builder.push_int(value)
        else:
            builder.push_str(value)
    reader = builder.build().fields()
    popped = [reader.pop_int() if isinstance(v, int) else reader.pop_str() for v in pushed]
    assert popped == pushed
    assert reader.remaining == 0


@given(st.binary(max_size=60), st.lists(st.booleans(), max_size=20))
def test_pop_hostile_payload_gives_value_none_or_wire_error(data: bytes, pops: list[bool]) -> None:
    reader = FieldReader(data)
    for as_int in pops:
        before = reader.remaining
        try:
            value = reader.pop_int() if as_int else reader.pop_str()
        except WireError:
            assert reader.remaining == before
            break
        assert (value is None) == (before == 0)


# -- building ----------------------------------------------------------------------------------


def test_push_returns_builder() -> None:
    builder = PacketBuilder("mod", 0, 1)
    assert builder.push_int(1) is builder
    assert builder.push_str("x") is builder


def test_build_then_push_leaves_packet_unchanged() -> None:
    builder = PacketBuilder("mod", 0, 1).push_int(1)
    first = builder.build()
    second = builder.push_int(2).build()
    assert (first.payload, second.payload) == (ints(1), ints(1, 2))


def test_builder_size_is_frame_size() -> None:
    builder = PacketBuilder("café", 0, 1)
    assert builder.size == len(builder.build().encode())
    builder.push_int(1).push_str("é")
    assert builder.size == len(builder.build().encode())


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("é", "é".encode()),
        ("\udcff", b"\xff"),
        (b"\xff\0", b"\xff\0"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (memoryview(struct.pack("<2i", 1, 2)).cast("i"), ints(1, 2)),
    ],
)
def test_push_str_text_and_bytes_accepted(value: Any, data: bytes) -> None:
    packet = PacketBuilder("mod", 0, 1).push_str(value).build()
    assert packet.payload == ints(len(data)) + data


@pytest.mark.parametrize("value", [None, 5, ["x"], "\ud800"])
def test_push_str_other_type_raises(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="string field"):
        PacketBuilder("mod", 0, 1).push_str(value)


@pytest.mark.parametrize("value", [INT_MIN - 1, INT_MAX + 1, 1.0, "1", None, True])
def test_push_int_beyond_32_bits_raises(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="integer field must be an integer from"):
        PacketBuilder("mod", 0, 1).push_int(value)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((b"mod", 0, 1), "module"),
        (("\ud800", 0, 1), "module"),
        (("mod", 2**31, 1), "packet type"),
        (("mod", 0, -(2**31) - 1), "machine_id"),
        (("mod", 0, None), "machine_id"),
        (("mod", 0, 1, 2**15), "packet version"),
    ],
)
def test_builder_invalid_header_value_raises_with_name(
    arguments: tuple[Any, ...], fault: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"^{fault} "):
        PacketBuilder(*arguments)


def test_build_frame_of_65535_bytes_accepted() -> None:
    packet = PacketBuilder("m", 0, 1).push_str(bytes(65_535 - 16 - 1 - 8 - 4)).build()
    assert len(packet.encode()) == 65_535


def test_push_beyond_65535_bytes_raises_without_change() -> None:
    builder = PacketBuilder("m", 0, 1).push_str(bytes(65_535 - 16 - 1 - 8 - 4 - 3))
    with pytest.raises(FrameTooLarge, match="m packet of type 0 takes 65536 bytes"):
        builder.push_int(1)
    with pytest.raises(FrameTooLarge):
        builder.push_str(b"")
    assert builder.size == len(builder.build().encode()) == 65_532


def test_builder_name_longer_than_frame_raises() -> None:
    PacketBuilder("m" * (65_535 - 24), 0, 1)
    with pytest.raises(FrameTooLarge):
        PacketBuilder("m" * (65_535 - 23), 0, 1)


# -- encoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "fault"),
    [
        (Packet("m", 2**31, 1), "packet type"),
        (Packet("m", 0, 2**31), "machine_id"),
        (Packet("m", 0, 1, b"", -(2**15) - 1), "packet version"),
        (Packet("\ud800", 0, 1), "module"),
        (Packet("m", 0, None, b"1234"), "has fields but no machine_id"),
        (Packet("m", 0, 1, bytes(65_535)), "takes 65560 bytes"),
    ],
)
def test_encode_beyond_frame_raises(packet: Packet, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        packet.encode()


def test_packet_frozen_and_equal_by_value() -> None:
    packet: Any = Packet("m", 0, 1)
    with pytest.raises(AttributeError):
        packet.type = 5
    assert packet == Packet("m", 0, 1, b"", 1)
