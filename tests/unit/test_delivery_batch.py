"""Log entries become frames: by cluster, from any position, down to the single frame."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clusterer.delivery.batch import Batch, Outbox, sequence_of
from clusterer.delivery.frames import NAME_AT_3
from clusterer.store import ClusterKey
from tests.support.frames import frame
from tests.support.vectors3 import module_frames3, sent_to

ONE, TWO = ClusterKey(1, "bin"), ClusterKey(2, "bin")


def entry(last: int, n: int, *numbers: int, cluster: int = 1) -> tuple[bytes, list[bytes]]:
    frames = [frame(number, size=100 + number) for number in numbers]
    return entry_of(last, n, frames, cluster)


def entry_of(
    last: int, n: int, frames: Sequence[bytes], cluster: int = 1
) -> tuple[bytes, list[bytes]]:
    values = (b"%d" % cluster, b"bin", b"%d" % n, b"%d" % len(frames), b"".join(frames))
    names = (b"cluster", b"protocol", b"n", b"packets", b"frames")
    fields = [part for pair in zip(names, values, strict=True) for part in pair]
    return b"%d-1700000000000" % last, fields


def test_batch_consecutive_entries_of_cluster_are_joined() -> None:
    batch = Batch([entry(1, 1, 1), entry(3, 3, 2, 3)], 0)
    frames = batch.clusters[ONE]
    assert (batch.last, batch.packets, batch.size) == (3, 3, 306)
    assert (frames.first_n, frames.last_n, frames.packets) == (1, 3, 3)
    assert frames.data == b"".join(frame(n, size=100 + n) for n in (1, 2, 3))
    assert frames.ends == [101, 203, 306]
    assert [frames.sequence(i) for i in range(3)] == [1, 2, 3]


def test_batch_clusters_keep_their_own_counts() -> None:
    batch = Batch([entry(1, 7, 1), entry(2, 1, 2, cluster=2), entry(3, 8, 3)], 0)
    assert batch.clusters[ONE].first_n == 7
    assert [batch.clusters[ONE].sequence(i) for i in range(2)] == [1, 3]
    assert batch.clusters[TWO].sequence(0) == 2


@pytest.mark.parametrize("after", [10, 11, 12])
def test_batch_offset_inside_entry_cuts_delivered_part(after: int) -> None:
    batch = Batch([entry(13, 23, 11, 12, 13), entry(14, 24, 14)], after)
    frames = batch.clusters[ONE]
    left = range(after + 1, 15)
    assert frames.data == b"".join(frame(n, size=100 + n) for n in left)
    assert frames.packets == len(left)
    assert frames.first_n == 10 + after + 1
    assert [frames.sequence(i) for i in range(frames.packets)] == list(left)


def test_batch_missing_frame_has_no_sequence() -> None:
    with pytest.raises(IndexError):
        Batch([entry(1, 1, 1)], 0).clusters[ONE].sequence(1)


def test_sequence_is_first_part_of_id() -> None:
    assert sequence_of(b"12-34") == 12


JUNK = [b"a", b"1"]


@pytest.mark.parametrize(
    ("entries", "last", "packets", "unread"),
    [
        ([(b"11-1", JUNK), entry(11, 1, 1)], 11, 1, 1),
        ([(b"11-1", JUNK), (b"12-1", JUNK), entry(13, 3, 1, 2, 3)], 13, 3, 2),
        ([(b"11-1", JUNK), (b"12-1", JUNK), entry(12, 1, 1), entry(13, 2, 2)], 13, 2, 2),
        ([(b"11-1", JUNK), entry(11, 1, 1), (b"12-1", JUNK)], 11, 1, 1),
        ([(b"11-1", JUNK), (b"12-1", JUNK), entry(13, 1, 1)], 12, 0, 2),
        ([(b"11-1", JUNK), (b"12-1", JUNK)], 12, 0, 2),
    ],
)
def test_batch_with_foreign_entry_keeps_packet_of_its_number(
    entries: list[tuple[bytes, list[bytes]]], last: int, packets: int, unread: int
) -> None:
    batch = Batch(entries, 10)
    assert (batch.last, batch.packets, len(batch.unread)) == (last, packets, unread)


@pytest.mark.parametrize(
    ("written", "kept", "end"),
    [(0, 0, 0), (1, 1, 101), (100, 1, 101), (101, 1, 101), (102, 2, 203), (306, 3, 306)],
)
def test_outbox_is_cut_after_begun_frame(written: int, kept: int, end: int) -> None:
    frames = Batch([entry(3, 3, 1, 2, 3)], 0).clusters[ONE]
    box = Outbox(frames, frames.data, written, 3)
    assert box.cut() == kept
    assert box.end == end


# -- dialect 3.x -----------------------------------------------------------------------------------


def test_batch_of_3x_has_frames_for_each_node() -> None:
    frames = [sent_to(found, 0) for found in module_frames3()]
    count = len(frames)
    entries = [entry_of(10, 10, frames[:10]), entry_of(count, count, frames[10:])]
    batch = Batch(entries, 0, {1})
    found = batch.clusters[ONE]
    assert (batch.packets, found.packets, batch.unread) == (count, count, [])
    assert found.data == b"".join(frames)
    for node in (22, 2**31 - 1):
        assert found.addressed(node) == b"".join(sent_to(each, node) for each in frames)
    names = {each[NAME_AT_3[1] : NAME_AT_3[1] + each[10]] for each in frames}
    assert {name for name, _, _ in found.modules.whole} == names


@pytest.mark.parametrize(
    ("dialect3", "cluster", "fault"),
    [
        ((), 1, "frames of OpenSIPS 3.x; opensips_3_clusters lacks cluster 1"),
        ((1,), 2, "frames of OpenSIPS 3.x; opensips_3_clusters lacks cluster 2"),
        ((1, 2), 2, "frames are not those of OpenSIPS 3.x for cluster 2"),
    ],
)
def test_batch_frames_of_other_dialect_or_cluster_are_unread(
    dialect3: Sequence[int], cluster: int, fault: str
) -> None:
    other = entry_of(11, 1, module_frames3()[:1], cluster)
    batch = Batch([other, entry(12, 1, 1, cluster=3)], 10, dialect3)
    assert batch.unread == [(other[0], fault)]
    assert (batch.packets, batch.last, batch.clusters) == (0, 11, {})


def test_batch_frames_of_2_2_in_cluster_of_3x_end_the_batch() -> None:
    good = entry_of(11, 1, module_frames3()[:1])
    batch = Batch([good, entry(12, 2, 1)], 10, {1})
    assert (batch.packets, batch.last, batch.unread) == (1, 11, [])
    batch = Batch([entry(12, 2, 1)], 11, {1})
    assert [fault for _, fault in batch.unread] == [
        "frames are not those of OpenSIPS 3.x for cluster 1"
    ]
