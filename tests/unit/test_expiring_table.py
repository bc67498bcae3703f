"""The bounded table of observers: expiry, eviction, groups, reported changes."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import InvalidArgument
from clusterer.modules.expiring import ENTRY_BYTES, Bounds, Change, ExpiringTable, Reason
from tests.support.processes import EVENTUALLY_S


def table_of(max_entries: int = 100, max_bytes: int = 10**9) -> ExpiringTable[str, int]:
    """Return a table with keys grouped by their first letter."""
    return ExpiringTable(lambda key: key[0], Bounds(max_entries, max_bytes))


def test_put_new_other_and_equal_value_reports_changes() -> None:
    table = table_of()
    (added,) = table.put("a", 1, 10, 0, now=0)
    (updated,) = table.put("a", 2, 10, 0, now=0)
    assert (added, added.kind) == (Change(None, 1), "added")
    assert (updated, updated.kind) == (Change(1, 2), "updated")
    assert table.put("a", 2, 10, 0, now=0) == []
    (removed,) = table.discard(["a", "b"])
    assert (removed, removed.kind) == (Change(2, None), "removed")
    assert len(table) == 0


def test_value_at_its_time_expires_once() -> None:
    table = table_of()
    table.put("a", 1, 10, 0, now=0)
    assert (table.get("a", 9.9), table.values(9.9)) == (1, [1])
    assert (table.get("a", 10), table.values(10), table.values(10, "a")) == (None, [], [])
    assert table.expire(9.9) == []
    assert table.expire(10) == [Change(1, None, Reason.EXPIRED)]
    assert table.expire(10) == []


def test_put_again_moves_expiry_later_or_sooner() -> None:
    table = table_of()
    table.put("a", 1, 10, 0, now=0)
    table.put("b", 2, 50, 0, now=0)
    table.put("a", 1, 30, 0, now=5)
    table.put("b", 2, 20, 0, now=5)
    assert table.expire(15) == []
    assert table.expire(20) == [Change(2, None, Reason.EXPIRED)]
    assert table.expire(30) == [Change(1, None, Reason.EXPIRED)]


def test_value_until_infinity_stays() -> None:
    table = table_of()
    table.put("a", 1, math.inf, 0, now=0)
    assert table.expire(10**12) == []
    assert table.values(10**12) == [1]


def test_full_table_evicts_expired_then_oldest() -> None:
    table = table_of(max_entries=3)
    for number, (key, until) in enumerate((("a", 99), ("b", 10), ("c", 99))):
        table.put(key, number, until, 0, now=0)
    table.put("a", 0, 99, 0, now=1)
    assert table.put("d", 3, 99, 0, now=10) == [
        Change(1, None, Reason.EXPIRED),
        Change(None, 3),
    ]
    assert table.put("e", 4, 99, 0, now=11)[1:] == [Change(2, None, Reason.EVICTED)]
    assert table.known_keys() == ["a", "d", "e"]


def test_large_payloads_bounded_by_bytes() -> None:
    table = table_of(max_bytes=3 * (40_000 + ENTRY_BYTES))
    for key in "abcde":
        table.put(key, 1, 99, 40_000, now=0)
    assert table.known_keys() == ["c", "d", "e"]
    table.put("e", 1, 99, 0, now=0)
    table.put("f", 1, 99, 30_000, now=0)
    assert table.known_keys() == ["c", "d", "e", "f"]


def test_values_of_group_returned() -> None:
    table = table_of()
    for number, key in enumerate(("a1", "b1", "a2")):
        table.put(key, number, 10, 0, now=0)
    assert table.known_keys("a") == ["a1", "a2"]
    assert table.values(0, "a") == [0, 2]
    table.discard(["a1", "a2"])
    assert (table.known_keys("a"), table.values(0, "a")) == ([], [])
    assert table._groups.keys() == {"b"}


def test_put_repeated_takes_no_more_memory() -> None:
    table = table_of()
    for now in range(20_000):
        table.put("ab"[now % 2], 1, now + 50_000, 0, now)
    assert len(table._due) < 1_100
    assert table.expire(70_000) == [Change(1, None, Reason.EXPIRED)] * 2


def test_expiry_order_after_heap_cleanup_kept() -> None:
    table = table_of()
    untils = [10 + 37 * number % 50 for number in range(50)]
    for number, until in enumerate(untils):
        table.put(f"k{number}", until, until, 0, now=0)
    for _ in range(3_000):
        table.put("refreshed", 0, 1_000, 0, now=0)
    assert len(table._due) < 1_200
    gone = [change.old for now in range(100) for change in table.expire(now)]
    assert gone == sorted(untils)


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_bytes": 65_535}])
def test_bounds_below_one_entry_raise(bounds: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="must have room for 1 entry"):
        Bounds(**bounds)


KEYS = st.sampled_from([f"{group}{number}" for group in "ab" for number in range(3)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 5), st.integers(0, 20)),
        st.tuples(st.just("discard"), KEYS, st.just(0), st.just(0)),
        st.tuples(st.just("expire"), st.just(""), st.integers(0, 10), st.just(0)),
    )
)


@given(STEPS)
def test_changes_match_table_after_any_calls(
    steps: list[tuple[str, str, int, int]],
) -> None:
    """A copy with every change applied equals the table; the bounds hold at every step."""
    table: ExpiringTable[str, tuple[str, int]] = ExpiringTable(lambda key: key[0], Bounds(4))
    copy: dict[str, tuple[str, int]] = {}
    now = 0
    for step, key, number, more in steps:
        if step == "put":
            changes = table.put(key, (key, number), now + more + 1, 0, now)
        elif step == "discard":
            changes = table.discard([key])
        else:
            now += number
            changes = table.expire(now)
        for change in changes:
            if change.old is not None:
                assert copy.pop(change.old[0]) == change.old
            if change.new is not None:
                copy[change.new[0]] = change.new
        assert sorted(copy) == sorted(table.known_keys())
        assert len(table) <= 4
        assert sorted(table.known_keys("a") + table.known_keys("b")) == sorted(copy)
    assert table._bytes == len(table) * ENTRY_BYTES


def test_values_read_while_written_complete() -> None:
    table = table_of(max_entries=50)
    faults: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                table.values(0)
                table.values(0, "k")
                table.known_keys()
        except Exception as error:  # noqa: BLE001  the test asserts that there is none
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(5_000):
        table.put(f"k{number % 70}", number, number + 1_000, 0, now=0)
        table.discard([f"k{number % 13}"])
    done.set()
    for reader in readers:
        reader.join(EVENTUALLY_S)
    assert faults == []
