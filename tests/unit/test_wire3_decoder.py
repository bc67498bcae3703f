"""The decoders of OpenSIPS 3.x: captured streams, any split, any header, either dialect."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.wire import EitherDecoder, FrameDecoder, FrameDecoder3, Packet, Trailer, WireError
from clusterer.wire.layout3 import BRIDGE, INTERNAL
from tests.support.vectors import (
    captured_frames,
    captured_stream,
    opensips3_frames,
    opensips3_streams,
    raw_frame,
    raw_frame3,
)

Decoder = FrameDecoder | EitherDecoder

IDS = struct.pack("<iii", 1, 21, 22)
"""Cluster 1, node 21, node 22."""
FRAME = raw_frame3(b"payload" + IDS)
PACKET = Packet("mod-repl", 7, 21, b"payload", 1, Trailer(1, 22))
FRAME2 = raw_frame(struct.pack("<i", 5) + b"payload")
PACKET2 = Packet("mod", 7, 5, b"payload")
WORD = b"\0\0\0\0"

HOSTILE = {
    "length 0": raw_frame3(IDS, length=0),
    "length of the header only": raw_frame3(IDS, length=12),
    "length one below the smallest": raw_frame3(IDS, length=16),
    "length one above the largest": raw_frame3(IDS, length=65_536),
    "length highest": raw_frame3(IDS, length=2**32 - 1),
    "no name": raw_frame3(IDS, name_length=0),
    "name into the type": raw_frame3(name_length=9),
    "name past the frame": raw_frame3(IDS, name_length=65_535),
    "no name in the smallest frame": raw_frame3(b"x", name=b""),
}


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(data)])]


def fed(decoder: Decoder, chunks: list[bytes]) -> list[Packet]:
    return [packet for chunk in chunks for packet in decoder.feed(chunk)]


def until_error(decoder: Decoder, chunks: list[bytes]) -> tuple[list[Packet], WireError]:
    """Return the packets before the error, and the error, which must exist."""
    got: list[Packet] = []
    try:
        for chunk in chunks:
            for packet in decoder.feed(chunk):
                got.append(packet)  # noqa: PERF402  one by one: an error must not lose them
    except WireError as error:
        return got, error
    pytest.fail(f"no WireError after {got}")


# -- captured frames ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FrameDecoder3, EitherDecoder])
def test_dialect3_captured_frames_encode_to_same_bytes(kind: type[Decoder]) -> None:
    for captured in opensips3_frames():
        (packet,) = kind().feed(captured.frame)
        assert packet.encode() == captured.frame


def test_dialect3_captured_frames_have_decoded_identities() -> None:
    for captured in opensips3_frames():
        (packet,) = FrameDecoder3().feed(captured.frame)
        named = captured.decoded.get("trailer", captured.decoded)
        trailer = packet.trailer
        assert trailer is not None
        assert (packet.module, packet.version) == (captured.module, captured.version)
        assert (packet.machine_id or trailer.source_node) == named["source"]
        assert trailer.cluster_id == named["cluster"]
        assert trailer.destination == named.get("dest")
        assert trailer.source_cluster == named.get("src_cluster")
        assert (trailer.destination is None) == (packet.module == INTERNAL)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 46, 100, 1448, 65_536])
@pytest.mark.parametrize("kind", [FrameDecoder3, EitherDecoder])
def test_dialect3_captured_streams_decode_at_any_size(kind: type[Decoder], size: int) -> None:
    for stream in opensips3_streams():
        decoder = kind()
        packets = fed(decoder, pieces(stream.data, size))
        assert len(packets) == stream.frames
        assert b"".join(packet.encode() for packet in packets) == stream.data
        assert not decoder.in_message
        assert decoder.skipped_words == 0
        assert decoder.opensips_3


LONGEST = max((stream.data for stream in opensips3_streams()), key=len)


@given(st.lists(st.integers(0, len(LONGEST)), max_size=60))
def test_dialect3_captured_stream_any_cuts_decodes(cuts: list[int]) -> None:
    packets = fed(EitherDecoder(), cut(LONGEST, cuts))
    assert b"".join(packet.encode() for packet in packets) == LONGEST


# -- frames made by hand -----------------------------------------------------------------------

numbers = st.integers(-(2**31), 2**31 - 1)
bodies = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda data: data + struct.pack("<iiii", 1, 2, 3, BRIDGE), st.binary(max_size=30)),
    st.builds(lambda data: data + struct.pack("<i", BRIDGE), st.binary(max_size=14)),
)
names = st.binary(min_size=1, max_size=40) | st.sampled_from([INTERNAL.encode(), b"ul"])
raw_frames = st.builds(
    lambda name, kind, version, body: raw_frame3(body, name=name, kind=kind, version=version),
    names,
    numbers,
    st.integers(-(2**15), 2**15 - 1),
    bodies,
)


@given(st.lists(raw_frames, max_size=8), st.data())
def test_dialect3_any_frames_at_any_split_round_trip(
    frames: list[bytes], data: st.DataObject
) -> None:
    """A received frame encodes to its own bytes, whatever its name and identities."""
    stream = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    decoder = FrameDecoder3()
    assert [packet.encode() for packet in fed(decoder, cut(stream, cuts))] == frames
    assert not decoder.in_message


@given(st.binary(max_size=60), st.integers(1, 60))
def test_dialect3_bytes_after_marker_at_any_split_agree(rest: bytes, size: int) -> None:
    results = []
    for chunks in (pieces(b"P4CK" + rest, size), [b"P4CK" + rest]):
        got: list[Packet] = []
        decoder = FrameDecoder3()
        try:
            for packet in itertools.chain.from_iterable(map(decoder.feed, chunks)):
                got.append(packet)  # noqa: PERF402  an error must not lose them
        except WireError:
            results.append((got, "error", False))
        else:
            results.append((got, "", decoder.in_message))
    assert results[0] == results[1]


def test_dialect3_smallest_and_largest_frame_decode() -> None:
    smallest = raw_frame3(name=b"x")
    assert len(smallest) == 17
    assert fed(FrameDecoder3(), [smallest]) == [Packet("x", 7, None, b"", 1, Trailer(None))]
    largest = raw_frame3(bytes(65_535 - 36) + IDS)
    assert len(largest) == 65_535
    packets = fed(FrameDecoder3(), pieces(largest, 100))
    assert packets == [PACKET._replace(payload=bytes(65_535 - 36))]
    assert packets[0].encode() == largest


def test_dialect3_packet_from_other_cluster_names_its_source() -> None:
    frame = raw_frame3(b"payload" + struct.pack("<iiii", 7, 3, 24, BRIDGE))
    (packet,) = FrameDecoder3().feed(frame)
    assert packet == Packet("mod-repl", 7, None, b"payload", 1, Trailer(3, BRIDGE, 7, 24))
    assert packet.encode() == frame


@pytest.mark.parametrize("size", range(12))
def test_dialect3_frame_without_trailer_has_no_identities(size: int) -> None:
    (packet,) = FrameDecoder3().feed(raw_frame3(b"x" * size))
    assert packet == Packet("mod-repl", 7, None, b"x" * size, 1, Trailer(None))


@pytest.mark.parametrize("size", range(12, 16))
def test_dialect3_trailer_of_bridge_cut_off_has_no_identities(size: int) -> None:
    body = b"x" * (size - 4) + struct.pack("<i", BRIDGE)
    (packet,) = FrameDecoder3().feed(raw_frame3(body))
    assert packet == Packet("mod-repl", 7, None, body, 1, Trailer(None))


def test_dialect3_internal_frame_has_identities_first() -> None:
    frame = raw_frame3(struct.pack("<iii", 1, 21, 9), name=INTERNAL.encode())
    packet = Packet(INTERNAL, 7, 21, struct.pack("<i", 9), 1, Trailer(1))
    assert fed(FrameDecoder3(), [frame]) == [packet]
    short = raw_frame3(b"1234567", name=INTERNAL.encode())
    assert fed(FrameDecoder3(), [short]) == [
        Packet(INTERNAL, 7, None, b"1234567", 1, Trailer(None))
    ]


# -- valid marker, hostile rest ----------------------------------------------------------------


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize("kind", [FrameDecoder3, EitherDecoder])
def test_dialect3_hostile_header_raises_after_packets(
    frame: bytes, size: int, kind: type[Decoder]
) -> None:
    decoder = kind()
    got, error = until_error(decoder, pieces(FRAME * 2 + frame + FRAME, size))
    assert got == [PACKET] * 2
    assert not decoder.in_message
    with pytest.raises(WireError) as caught:
        decoder.feed(FRAME)
    assert caught.value is error


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
def test_dialect3_hostile_header_raises_at_its_last_byte(frame: bytes) -> None:
    decoder = FrameDecoder3()
    assert fed(decoder, pieces(frame[:11], 3)) == []
    assert decoder.in_message
    with pytest.raises(WireError):
        fed(decoder, [frame[11:12]])


@given(
    st.integers(0, 2**32 - 1) | st.integers(0, 99), st.integers(0, 2**16 - 1), st.integers(1, 64)
)
def test_dialect3_any_claimed_lengths_raise_wire_error_only(
    length: int, name_length: int, size: int
) -> None:
    stream = raw_frame3(bytes(30), length=length, name_length=name_length)
    legal = 17 <= length <= 65_535 and 0 < name_length <= length - 16
    if legal and length == len(stream):
        assert len(fed(FrameDecoder3(), pieces(stream, size))) == 1
    elif legal and length > len(stream):
        assert fed(FrameDecoder3(), pieces(stream, size)) == []
    else:
        with pytest.raises(WireError):
            fed(FrameDecoder3(), pieces(stream + b"xxxx", size))


@pytest.mark.parametrize("size", [1, 3, 10**6])
@pytest.mark.parametrize("wrong", [b"GET / HTTP/1.1\r\n\r\n", WORD, FRAME2, b"P4CX" + FRAME[4:]])
def test_dialect3_wrong_bytes_after_frame_raise(size: int, wrong: bytes) -> None:
    got, error = until_error(FrameDecoder3(), pieces(FRAME + wrong + FRAME, size))
    assert got == [PACKET]
    assert str(error)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("kind", [FrameDecoder3, EitherDecoder])
def test_dialect3_wrong_marker_raises_at_first_wrong_byte(at: int, kind: type[Decoder]) -> None:
    decoder = kind()
    assert list(decoder.feed(b"P4CK"[:at])) == []
    with pytest.raises(WireError, match="expected the marker"):
        list(decoder.feed(b"x"))


def test_dialect3_decoder_memory_stays_at_one_frame() -> None:
    unfinished = raw_frame3(IDS, length=65_535)[:-1]
    decoder = EitherDecoder()
    tracemalloc.start()
    try:
        for _ in range(20):
            fed(decoder, [unfinished, *[bytes(1000)] * 65])
            assert decoder.in_message
            fed(decoder, [bytes(65_535 - 65_000 - len(unfinished))])
            assert not decoder.in_message
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 150_000
    assert peak < 1_500_000


def test_dialect3_invented_names_are_not_kept() -> None:
    def feed(numbers: range) -> None:
        for number in numbers:
            frame = raw_frame3(IDS, name=b"%060000d" % number)
            assert len(fed(FrameDecoder3(), [frame])) == 1

    feed(range(10))
    tracemalloc.start()
    try:
        feed(range(10, 110))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000


# -- either dialect ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 15, 16, 17, 10**6])
def test_either_decoder_reads_a_connection_of_22(size: int) -> None:
    decoder = EitherDecoder()
    stream = WORD + FRAME2 + WORD + FRAME2
    assert fed(decoder, pieces(stream, size)) == [PACKET2] * 2
    assert not decoder.opensips_3
    assert decoder.skipped_words == 2


def test_either_decoder_captured_22_frames_decode_as_22() -> None:
    for captured in captured_frames():
        decoder = EitherDecoder()
        assert fed(decoder, [captured.frame]) == fed(FrameDecoder(), [captured.frame])
        assert not decoder.opensips_3
    stream, count = captured_stream()
    assert len(fed(EitherDecoder(), pieces(stream, 1000))) == count


@pytest.mark.parametrize("name", [b"x", b"ul", b"pua", b"presence", b"\xff\xfe", b"Capability"])
@pytest.mark.parametrize("body", [b"", IDS, bytes(1000) + IDS])
def test_either_decoder_tells_3x_by_any_name(name: bytes, body: bytes) -> None:
    decoder = EitherDecoder()
    frame = raw_frame3(body, name=name)
    assert [packet.encode() for packet in fed(decoder, [frame])] == [frame]
    assert decoder.opensips_3


@pytest.mark.parametrize(("first", "then"), [(FRAME, FRAME2), (FRAME2, FRAME)])
@pytest.mark.parametrize("size", [1, 10**6])
def test_either_decoder_keeps_dialect_of_first_frame(first: bytes, then: bytes, size: int) -> None:
    got, _ = until_error(EitherDecoder(), pieces(first + then, size))
    assert got == [PACKET if first is FRAME else PACKET2]


def test_either_decoder_in_message_from_first_byte() -> None:
    decoder = EitherDecoder()
    assert (decoder.opensips_3, decoder.skipped_words) == (False, 0)
    begun = [decoder.in_message]
    for part in (FRAME[:1], FRAME[1:15], FRAME[15:30], FRAME[30:]):
        list(decoder.feed(part))
        begun.append(decoder.in_message)
    assert begun == [False, True, True, True, False]


def test_either_decoder_feed_without_iteration_consumes_chunk() -> None:
    decoder = EitherDecoder()
    decoder.feed(FRAME[:10])
    ignored = decoder.feed(FRAME[10:] + FRAME[:20])
    assert list(decoder.feed(FRAME[20:])) == [PACKET]
    assert list(ignored) == [PACKET]
