"""How often and how much the worker reads, by what its last reads brought."""

from __future__ import annotations

import pytest

from clusterer.delivery.read_pace import (
    FIRST_READ,
    MAX_READ,
    MIN_SHARE,
    PACE_S,
    PACED_BELOW_ENTRIES,
    PACED_BELOW_S,
    READ_BYTES,
    Pace,
    ReadSize,
)


@pytest.mark.parametrize(
    ("entries", "after_s", "pause_s"),
    [
        (1, PACED_BELOW_S / 2, PACE_S),
        (PACED_BELOW_ENTRIES - 1, PACED_BELOW_S / 2, PACE_S),
        (PACED_BELOW_ENTRIES, PACED_BELOW_S / 2, 0.0),
        (0, PACED_BELOW_S / 2, 0.0),
        (1, PACED_BELOW_S * 2, 0.0),
    ],
    ids=["trickle", "almost full", "full", "nothing came", "sparse"],
)
def test_pace_only_small_fast_reads_pause(entries: int, after_s: float, pause_s: float) -> None:
    pace = Pace()
    pace.note_read(1, 100.0)
    assert pace.ask_at == 100.0
    now = 100.0 + after_s
    pace.note_read(entries, now)
    assert pace.ask_at == now + pause_s


def test_pace_entries_follow_their_size_in_bounds() -> None:
    size = ReadSize()
    assert size.count == FIRST_READ
    size.note(0)
    assert size.count == FIRST_READ
    for _ in range(10):
        size.note(1)
    assert size.count == MAX_READ
    size.note(READ_BYTES // 2)
    assert size.count == MAX_READ
    for _ in range(10):
        size.note(READ_BYTES + 1)
    assert size.count == 8


@pytest.mark.parametrize(
    ("count", "logs", "share"),
    [
        (MAX_READ, 0, MAX_READ),
        (MAX_READ, 1, MAX_READ),
        (MAX_READ, 4, MAX_READ // 4),
        (MAX_READ, 128, MIN_SHARE),
        (8, 128, 8),
    ],
    ids=["none", "one", "a few", "many", "of large entries"],
)
def test_pace_logs_share_bytes_of_one_read(count: int, logs: int, share: int) -> None:
    size = ReadSize()
    size.count = count
    assert size.per_log(logs) == share
