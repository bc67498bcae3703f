"""Destinations of joined frames of OpenSIPS 3.x, and the frames that have one."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.wire import Packet, PacketBuilder3, Trailer
from clusterer.wire.frame3 import addressed, is_for
from clusterer.wire.layout3 import EXTRA, INTERNAL
from tests.support.vectors3 import captured_frames3, module_frames3, packet_of, sent_to


@pytest.mark.parametrize("destination", [1, 255, 256, 2**31 - 1, -(2**30)])
def test_addressed_captured_frames_differ_in_destination_only(destination: int) -> None:
    frames = module_frames3()
    ends = list(accumulate(map(len, frames)))
    made = addressed(b"".join(frames), ends, destination)
    assert made == b"".join(sent_to(frame, destination) for frame in frames)


@given(st.integers(29, 200), st.integers(1, 40), st.integers(-(2**31), 2**31 - 1))
def test_addressed_frames_of_one_size_are_those_of_many(
    size: int, count: int, destination: int
) -> None:
    frames = bytes(range(200))[:size] * count
    ends = range(size, len(frames) + 1, size)
    assert addressed(frames, ends, destination) == addressed(frames, list(ends), destination)


def test_is_for_captured_frames_is_true_for_modules_of_cluster() -> None:
    for frame in captured_frames3():
        packet = packet_of(frame)
        assert packet.trailer is not None
        ours = packet.module not in {INTERNAL, EXTRA} and packet.trailer.cluster_id == 1
        assert is_for(frame, 1) is ours
        assert not is_for(frame, 2)


def test_is_for_hostile_or_foreign_frame_is_false() -> None:
    frame = PacketBuilder3("x", 1, 2, cluster_id=7).build().encode()
    assert is_for(frame, 7)
    assert not is_for(frame[:10] + b"\0\0" + frame[12:], 7), "no name"
    assert not is_for(frame[:10] + b"\2\0" + frame[12:], 7), "name runs into the trailer"
    assert not is_for(Packet("ul", 1, 7, bytes(40)).encode(), 7), "2.2"
    bridged = Packet("x", 1, 2, bytes(8), 1, Trailer(7, 3)).encode()
    assert is_for(bridged, 7)
