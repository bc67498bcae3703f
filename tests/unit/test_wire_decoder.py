"""The frame decoder: any split of the stream, any header."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.wire import FrameDecoder, Packet, PacketBuilder, WireError
from tests.support.vectors import Captured, captured_frames, captured_stream, raw_frame

STREAM, COUNT = captured_stream()
ME = struct.pack("<i", 5)
FRAME = raw_frame(ME + b"payload")
PACKET = Packet("mod", 7, 5, b"payload")
WORD = b"\0\0\0\0"


HOSTILE = {
    "length 0": raw_frame(ME, length=0),
    "length of the header only": raw_frame(ME, length=12),
    "length one below the smallest": raw_frame(ME, length=19),
    "name length -1": raw_frame(ME, name_length=-1),
    "name length lowest": raw_frame(ME, name_length=-(2**31)),
    "name length highest": raw_frame(ME, name_length=2**31 - 1),
    "name one byte into the type": raw_frame(ME, name_length=8),
    "name past the frame": raw_frame(ME, name_length=100),
    "name of one byte in the smallest frame": raw_frame(name=b"", name_length=1),
}


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def fed(decoder: FrameDecoder, chunks: list[bytes]) -> list[Packet]:
    return [packet for chunk in chunks for packet in decoder.feed(chunk)]


def until_error(decoder: FrameDecoder, chunks: list[bytes]) -> tuple[list[Packet], WireError]:
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


@pytest.mark.parametrize("captured", captured_frames(), ids=lambda c: f"{c.module}-{c.type}")
def test_captured_frame_encodes_to_same_bytes(captured: Captured) -> None:
    (packet,) = FrameDecoder().feed(captured.frame)
    assert (packet.module, packet.type, packet.version) == (captured.module, captured.type, 1)
    assert packet.machine_id == int(captured.source.rsplit(".", 1)[1])
    assert packet.encode() == captured.frame


@pytest.mark.parametrize("size", [*range(1, 65), 127, 1000, 1448, 4096, 16_384, 65_536, 10**6])
def test_captured_stream_any_chunk_size_decodes(size: int) -> None:
    decoder = FrameDecoder()
    packets = fed(decoder, pieces(STREAM, size))
    assert len(packets) == COUNT
    assert b"".join(packet.encode() for packet in packets) == STREAM
    assert not decoder.in_message
    assert decoder.skipped_words == 0


@given(st.lists(st.integers(0, len(STREAM)), max_size=60))
def test_captured_stream_any_cuts_decodes(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    packets = fed(FrameDecoder(), chunks)
    assert b"".join(packet.encode() for packet in packets) == STREAM


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_feed_any_buffer_type_accepted_and_not_kept(kind: type) -> None:
    store = bytearray(FRAME + FRAME[:10])
    decoder = FrameDecoder()
    assert fed(decoder, [kind(store)]) == [PACKET]
    store[:] = b"x" * len(store)
    assert fed(decoder, [kind(FRAME[10:])]) == [PACKET]


# -- frames made by hand -----------------------------------------------------------------------

names = st.binary(max_size=40)
numbers = st.integers(-(2**31), 2**31 - 1)
packets = st.builds(
    Packet,
    names.map(lambda name: name.decode("utf-8", "surrogateescape")),
    numbers,
    numbers,
    st.binary(max_size=300),
    st.integers(-(2**15), 2**15 - 1),
    st.none(),
)


@given(st.lists(packets, max_size=8), st.data())
def test_feed_any_packets_at_any_split_round_trip(sent: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(packet.encode() for packet in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    edges = [0, *sorted(cuts), len(stream)]
    decoder = FrameDecoder()
    assert fed(decoder, [stream[a:b] for a, b in itertools.pairwise(edges)]) == sent
    assert not decoder.in_message


alike = st.tuples(
    st.sampled_from([b"", b"mod", b"MOD", b"\xff\xfe\xfd"]),
    st.sampled_from([1, 7]),
    st.sampled_from([1, -1]),
    st.sampled_from([b"", b"\1\2", ME, ME + b"abc", b"\0\0\0\0xyz"]),
    st.sampled_from([WORD, b"\xde\xad\xbe\xef"]),
)


@given(st.lists(st.tuples(alike, st.integers(1, 5), st.integers(0, 2)), max_size=8), st.data())
def test_feed_run_of_one_shape_decodes_like_single_frames(
    runs: list[tuple[tuple[bytes, int, int, bytes, bytes], int, int]], data: st.DataObject
) -> None:
    frames = []
    for (name, kind, version, rest, junk), times, zeros in runs:
        frame = raw_frame(rest, name=name, kind=kind, version=version, junk=junk)
        frames += [frame] * times + [WORD] * zeros
    stream = b"".join(frames)
    expected = [packet for frame in frames for packet in FrameDecoder().feed(frame)]
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
    edges = [0, *sorted(cuts), len(stream)]
    decoder = FrameDecoder()
    assert fed(decoder, [stream[a:b] for a, b in itertools.pairwise(edges)]) == expected
    assert decoder.skipped_words == frames.count(WORD)
    assert not decoder.in_message


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("before", [1, 2, 3, 50])
def test_feed_hostile_frame_in_run_raises_after_packets(frame: bytes, before: int) -> None:
    got, _ = until_error(FrameDecoder(), [FRAME * before + frame + FRAME * 3])
    assert got == [PACKET] * before


def test_header_undefined_bytes_ignored_and_written_as_0() -> None:
    (packet,) = FrameDecoder().feed(raw_frame(ME, junk=b"\xde\xad\xbe\xef"))
    assert packet.encode() == raw_frame(ME)


def test_header_negative_version_and_type_signed() -> None:
    (packet,) = FrameDecoder().feed(raw_frame(ME, version=-3, kind=-2))
    assert (packet.version, packet.type) == (-3, -2)


@pytest.mark.parametrize("rest", [b"", b"\1", b"\1\0", b"\1\0\0"])
def test_frame_without_machine_id_has_none(rest: bytes) -> None:
    frame = raw_frame(rest)
    (packet,) = FrameDecoder().feed(frame)
    assert packet == Packet("mod", 7, None, rest)
    assert packet.encode() == frame


def test_smallest_frame_has_empty_name() -> None:
    frame = raw_frame(name=b"")
    assert len(frame) == 20
    assert fed(FrameDecoder(), [frame]) == [Packet("", 7, None)]


def test_largest_frame_in_small_chunks_decodes() -> None:
    frame = raw_frame(ME + bytes(65_535 - 27))
    assert len(frame) == 65_535
    assert fed(FrameDecoder(), pieces(frame, 100)) == [Packet("mod", 7, 5, bytes(65_508))]


def test_module_name_not_utf8_round_trips() -> None:
    frame = raw_frame(ME, name=b"\xff\xfe caf\xe9")
    (packet,) = FrameDecoder().feed(frame)
    assert packet.module == "\udcff\udcfe caf\udce9"
    assert packet.encode() == frame


# -- valid marker, hostile rest ----------------------------------------------------------------


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_feed_hostile_header_at_any_split_raises(frame: bytes, size: int) -> None:
    with pytest.raises(WireError):
        fed(FrameDecoder(), pieces(frame + FRAME, size))


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
def test_feed_hostile_header_of_unfinished_frame_raises(frame: bytes) -> None:
    with pytest.raises(WireError):
        list(FrameDecoder().feed(frame[:16]))


@pytest.mark.parametrize("name", [b"clusterer-internal", b"tm-repl", b"presence", b"ul"])
@pytest.mark.parametrize("size", [1, 10**6])
def test_feed_frame_of_later_opensips_is_named(name: bytes, size: int) -> None:
    body = name + struct.pack("<iiii", 1, 1, 24, 1)
    frame = b"P4CK" + struct.pack("<IhH", 12 + len(body), 1, len(name)) + body
    got, error = until_error(FrameDecoder(), pieces(FRAME + frame, size))
    assert got == [PACKET]
    assert str(error) == "a frame of OpenSIPS 2.3 or later, whose BIN differs from that of 2.2"


@pytest.mark.parametrize("length", [0, 12, 19])
def test_feed_short_length_raises_at_second_byte(length: int) -> None:
    decoder = FrameDecoder()
    frame = raw_frame(ME, length=length)
    assert list(decoder.feed(frame[:5])) == []
    with pytest.raises(WireError, match=f"frame length {length} is below"):
        list(decoder.feed(frame[5:6]))


def test_feed_unfinished_frame_is_in_message() -> None:
    decoder = FrameDecoder()
    assert fed(decoder, pieces(raw_frame(ME, length=65_535), 3)) == []
    assert decoder.in_message


@given(st.binary(max_size=60), st.integers(1, 60))
def test_feed_bytes_after_marker_at_any_split_agree(rest: bytes, size: int) -> None:
    results = []
    for chunks in (pieces(b"P4CK" + rest, size), [b"P4CK" + rest]):
        got: list[Packet] = []
        decoder = FrameDecoder()
        try:
            for packet in itertools.chain.from_iterable(map(decoder.feed, chunks)):
                got.append(packet)  # noqa: PERF402  an error must not lose them
        except WireError:
            results.append((got, "error", False))
        else:
            results.append((got, "", decoder.in_message))
    assert results[0] == results[1]


@given(st.integers(0, 65_535), st.integers(-(2**31), 2**31 - 1), st.integers(1, 64))
def test_feed_any_claimed_lengths_raise_wire_error_only(
    length: int, name_length: int, size: int
) -> None:
    stream = raw_frame(ME + bytes(30), length=length, name_length=name_length)
    legal = length >= 20 and 0 <= name_length <= length - 20
    decoder = FrameDecoder()
    if legal and length == len(stream):
        assert len(fed(decoder, pieces(stream, size))) == 1
    elif legal and length > len(stream):
        assert fed(decoder, pieces(stream, size)) == []
    else:
        with pytest.raises(WireError):
            # After a shorter legal frame zeros and then garbage follow.
            fed(decoder, pieces(stream + b"xxxx", size))


# -- wrong marker ------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(4))
def test_feed_wrong_marker_raises_at_first_wrong_byte(at: int) -> None:
    decoder = FrameDecoder()
    assert list(decoder.feed(b"P4CK"[:at])) == []
    with pytest.raises(WireError, match="expected the marker"):
        list(decoder.feed(b"x"))


@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_feed_wrong_marker_after_frame_raises(size: int) -> None:
    stream = FRAME + b"GET / HTTP/1.1\r\n\r\n" + FRAME
    got, error = until_error(FrameDecoder(), pieces(stream, size))
    assert got == [PACKET]
    assert "expected the marker" in str(error)


# -- the trailing empty string -----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 10**6])
def test_feed_zero_word_before_marker_skipped_and_counted(size: int) -> None:
    decoder = FrameDecoder()
    stream = FRAME + WORD + FRAME + FRAME + WORD + FRAME
    assert fed(decoder, pieces(stream, size)) == [PACKET] * 4
    assert decoder.skipped_words == 2


def test_feed_many_zero_words_each_counted() -> None:
    decoder = FrameDecoder()
    assert fed(decoder, pieces(FRAME + WORD * 1000 + FRAME, 1448)) == [PACKET] * 2
    assert decoder.skipped_words == 1000


@pytest.mark.parametrize("zeros", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("size", [1, 10**6])
def test_feed_partial_zero_word_before_marker_raises(zeros: int, size: int) -> None:
    with pytest.raises(WireError, match="expected the marker"):
        fed(FrameDecoder(), pieces(FRAME + b"\0" * zeros + FRAME, size))


@pytest.mark.parametrize("zeros", range(1, 9))
def test_feed_zeros_held_back_not_in_message(zeros: int) -> None:
    decoder = FrameDecoder()
    assert fed(decoder, [FRAME + b"\0" * zeros]) == [PACKET]
    assert not decoder.in_message
    assert decoder.skipped_words == zeros // 4


def test_feed_zero_word_before_unfinished_frame_skipped() -> None:
    decoder = FrameDecoder()
    assert fed(decoder, [FRAME + WORD + FRAME[:2]]) == [PACKET]
    assert decoder.in_message
    assert fed(decoder, [FRAME[2:]]) == [PACKET]
    assert decoder.skipped_words == 1


# -- feed --------------------------------------------------------------------------------------


def test_feed_without_iteration_consumes_chunk() -> None:
    decoder = FrameDecoder()
    decoder.feed(FRAME[:10])
    ignored = decoder.feed(FRAME[10:] + FRAME[:20])
    assert list(decoder.feed(FRAME[20:])) == [PACKET]
    assert list(ignored) == [PACKET]


@pytest.mark.parametrize(("chunk", "count"), [(b"", 0), (FRAME[:9], 0), (FRAME * 2, 2)])
def test_feed_returns_iterator(chunk: bytes, count: int) -> None:
    decoder = FrameDecoder()
    for data in (chunk, FRAME[len(chunk) % len(FRAME) :][:1]):
        found = decoder.feed(data)
        assert iter(found) is found
        assert len(list(found)) == (count if data is chunk else 0)


def test_feed_yields_packets_before_error_of_same_chunk() -> None:
    got, _ = until_error(FrameDecoder(), [FRAME * 3 + HOSTILE["name length -1"] + FRAME])
    assert got == [PACKET] * 3


def test_feed_after_error_raises_it_again() -> None:
    decoder = FrameDecoder()
    _, error = until_error(decoder, [b"nonsense"])
    for chunk in (FRAME, b"", b"nonsense"):
        with pytest.raises(WireError) as caught:
            decoder.feed(chunk)
        assert caught.value is error
    assert not decoder.in_message


def test_feed_after_error_without_iteration_raises_again() -> None:
    decoder = FrameDecoder()
    decoder.feed(FRAME + b"nonsense")
    with pytest.raises(WireError, match="expected the marker"):
        decoder.feed(FRAME)


def test_feed_after_error_traceback_does_not_grow() -> None:
    decoder = FrameDecoder()
    _, error = until_error(decoder, [b"nonsense"])
    for _ in range(5):
        with pytest.raises(WireError):
            decoder.feed(FRAME)
    depth = 0
    trace = error.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth <= 2


def test_decoder_memory_stays_at_one_frame() -> None:
    unfinished = raw_frame(ME, length=65_535)[:-1]
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        for _ in range(20):
            fed(decoder, [unfinished, *[bytes(1000)] * 65])
            assert decoder.in_message
            fed(decoder, [bytes(65_535 - 65_000 - len(unfinished)), WORD * 100_000])
            assert not decoder.in_message
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 150_000
    assert peak < 1_500_000


def test_feed_after_error_frees_bytes() -> None:
    decoder = FrameDecoder()
    assert fed(decoder, [raw_frame(ME, length=100), bytes(60)]) == []
    assert decoder.in_message
    got, _ = until_error(decoder, [b"y" * 1000])
    assert len(got) == 1
    assert not decoder.in_message


# -- against the builder -----------------------------------------------------------------------


@given(packets)
def test_builder_and_decoder_agree(packet: Packet) -> None:
    assert packet.machine_id is not None
    built = (
        PacketBuilder(packet.module, packet.type, packet.machine_id, packet.version)
        .push_str(packet.payload)
        .build()
    )
    (back,) = FrameDecoder().feed(built.encode())
    assert back == built
    assert back.fields().pop_str() == packet.payload
