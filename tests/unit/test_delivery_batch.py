"""Log entries become frames: by cluster, from any position, down to the single frame."""

from __future__ import annotations

import pytest

from clusterer.delivery.batch import Batch, Outbox, sequence_of
from clusterer.store import ClusterKey
from tests.support.frames import frame

ONE, TWO = ClusterKey(1, "bin"), ClusterKey(2, "bin")


def entry(last: int, n: int, *numbers: int, cluster: int = 1) -> tuple[bytes, list[bytes]]:
    frames = b"".join(frame(number, size=100 + number) for number in numbers)
    values = (b"%d" % cluster, b"bin", b"%d" % n, b"%d" % len(numbers), frames)
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
    box = Outbox(frames, written, 3)
    assert box.cut() == kept
    assert box.end == end
