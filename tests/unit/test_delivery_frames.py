"""Where frames end and of which modules they are: the same, however it is found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.delivery.frames import (
    NAME_AT_2,
    NAME_AT_3,
    ModuleCount,
    Modules,
    NameAt,
    are_frames3,
    frame_ends,
)
from clusterer.store.labels import MAX_LABELS, MAX_NAME, OTHERS, ModuleLabels
from clusterer.wire import Packet, Trailer
from tests.support.vectors3 import captured_frames3, module_frames3, sent_to

Frames = list[tuple[str, int]]
"""Module and size of the payload of each."""

NAMES = ("dialog", "ul", "ratelimit", "rateLimit", "")
ALIKE = st.tuples(st.sampled_from(NAMES), st.integers(0, 60), st.integers(1, 40)).map(
    lambda run: [(run[0], run[1])] * run[2]
)
SOME = st.tuples(st.sampled_from(NAMES), st.integers(0, 60)).map(lambda one: [one])
NAMES_AT = st.sampled_from((NAME_AT_2, NAME_AT_3))
FRAMES = st.lists(ALIKE | SOME, min_size=1, max_size=6).map(lambda found: sum(found, Frames()))


def encoded(module: str, payload: bytes, name_at: NameAt = NAME_AT_2) -> bytes:
    trailer = Trailer(1, 0) if name_at is NAME_AT_3 else None
    return Packet(module, 1, 7, payload, 1, trailer).encode()


def frames_of(frames: Frames, name_at: NameAt) -> list[bytes]:
    """Return frames whose payloads are full of what could be taken for a frame's head."""
    trap = encoded("trap", b"", name_at) * 4
    return [encoded(module, trap[:size], name_at) for module, size in frames]


def named(frames: Frames, name_at: NameAt) -> Frames:
    """Return frames that have a name in 3.x."""
    return [(module or "u", size) for module, size in frames] if name_at is NAME_AT_3 else frames


def totals(counts: Iterable[ModuleCount]) -> dict[bytes, tuple[int, int]]:
    return {name: (packets, size) for name, packets, size in counts}


def counted(modules: Sequence[str], frames: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    packets = Counter(modules)
    size: Counter[str] = Counter()
    for module, frame in zip(modules, frames, strict=True):
        size[module] += len(frame)
    return {module.encode(): (packets[module], size[module]) for module in packets}


@given(FRAMES, NAMES_AT, st.data())
def test_frames_ends_and_modules_are_of_each_frame(
    given_frames: Frames, name_at: NameAt, data: st.DataObject
) -> None:
    given_frames = named(given_frames, name_at)
    frames = frames_of(given_frames, name_at)
    modules = [module for module, _ in given_frames]
    blob = b"".join(frames)
    ends = frame_ends(blob)
    assert list(ends) == list(accumulate(map(len, frames)))
    found = Modules(blob, ends, name_at)
    assert totals(found.whole) == counted(modules, frames)
    first = data.draw(st.integers(0, len(frames)))
    end = data.draw(st.integers(first, len(frames)))
    assert totals(found.between(first, end)) == counted(modules[first:end], frames[first:end])


@given(FRAMES, NAMES_AT, st.lists(st.integers(0, 240), max_size=6))
def test_frames_parts_add_up_to_whole(
    given_frames: Frames, name_at: NameAt, cuts: list[int]
) -> None:
    given_frames = named(given_frames, name_at)
    blob = b"".join(frames_of(given_frames, name_at))
    found = Modules(blob, frame_ends(blob), name_at)
    at = sorted({0, *(min(cut, len(given_frames)) for cut in cuts), len(given_frames)})
    packets: Counter[bytes] = Counter()
    size: Counter[bytes] = Counter()
    for first, end in pairwise(at):
        for name, count, total in found.between(first, end):
            packets[name] += count
            size[name] += total
    assert {name: (packets[name], size[name]) for name in packets} == totals(found.whole)


def test_frames_one_of_other_size_or_module_is_found() -> None:
    frames = [encoded("dialog", b"x" * 20)] * 50
    for odd in (encoded("dialog", b"x" * 21), encoded("dialoh", b"x" * 20)):
        for place in (0, 1, 25, 49):
            found = [*frames[:place], odd, *frames[place + 1 :]]
            blob = b"".join(found)
            ends = frame_ends(blob)
            assert list(ends) == list(accumulate(map(len, found)))
            name = odd[16:22]
            assert (name, 1, len(odd)) in Modules(blob, ends).between(place, place + 1)
            assert sum(packets for _, packets, _ in Modules(blob, ends).whole) == 50


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"P4CK",
        bytes(40),
        b"P4CK\xff\xff" + bytes(30),
        encoded("ul", b"x") + b"P4C",
        encoded("ul", b"x") + b"P4CK" + bytes(20),
        b"\xff" * 2000,
    ],
)
def test_frames_invalid_bytes_stop_no_delivery(junk: bytes) -> None:
    found = Modules(junk, frame_ends(junk))
    for first, end in ((0, 1), (0, 9), (5, 9)):
        found.between(first, end)


def test_frames_module_labels_are_printable_and_few() -> None:
    labels = ModuleLabels()
    assert labels.of(b"dialog") == labels.of(b"dialog") == "dialog"
    assert labels.of("größe\udcff".encode("utf-8", "surrogateescape")) == "größe\\xff"
    assert labels.of(b"") == ""
    assert labels.of(b"n" * MAX_NAME) == "n" * MAX_NAME
    assert labels.of(b"n" * (MAX_NAME + 1)) == OTHERS
    seen = {labels.of(b"%d" % number) for number in range(1000)}
    assert len(seen) <= MAX_LABELS
    assert labels.of(b"999") == OTHERS
    assert (labels.of(b"dialog"), labels.of(b"")) == ("dialog", ""), "who was there first stays"


def test_frames_long_module_name_is_no_part_of_another() -> None:
    long = "n" * (MAX_NAME + 1)
    blob = encoded(long, b"x") * 3 + encoded("n" * MAX_NAME, b"x") * 3
    found = totals(Modules(blob, frame_ends(blob)).whole)
    assert {name: packets for name, (packets, _) in found.items()} == {
        long.encode(): 3,
        b"n" * MAX_NAME: 3,
    }


def test_frames_captured_3x_have_names_and_ends() -> None:
    frames = module_frames3()
    blob = b"".join(frames)
    ends = frame_ends(blob)
    assert list(ends) == list(accumulate(map(len, frames)))
    names = [frame[12 : 12 + frame[10]].decode() for frame in frames]
    assert totals(Modules(blob, ends, NAME_AT_3).whole) == counted(names, frames)
    assert are_frames3(blob, 1)
    assert not are_frames3(blob, 2)


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("place", [0, -1])
def test_frames_odd_one_among_frames3_is_found(count: int, place: int) -> None:
    frame = encoded("dialog-dlg-repl", b"x" * 20, NAME_AT_3)
    frames = [frame, sent_to(frame, 9)] * count
    assert are_frames3(b"".join(frames), 1)
    foreign = Packet("dialog-dlg-repl", 1, 7, b"x" * 20, 1, Trailer(2, 0)).encode()
    control = encoded("clusterer-extra", b"x" * 20, NAME_AT_3)
    internal = next(found for found in captured_frames3() if b"clusterer-internal" in found)
    two = encoded("dialog-dlg-repl", b"x" * 24)
    assert len(foreign) == len(control) == len(frame)
    for odd in (foreign, control, internal, two):
        frames[place] = odd
        assert not are_frames3(b"".join(frames), 1), odd
