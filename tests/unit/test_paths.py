"""Paths: the record of one sender, and when it closes the gate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterer.membership import Condition, Event, State
from clusterer.membership.paths import GRACE_MS, Path, as_seen, gate, is_void, observed
from tests.support.cluster import node

NODE = replace(node(2), epoch=7, duration=5, failed_attempts=3)
NOW = 1_000_000


def failed(times: int) -> Path:
    """Return the record after so many failed attempts."""
    path: Path | None = None
    for _ in range(times):
        path = observed(NODE, path, Event.SEND_FAILED, NOW, "Connection refused")
    assert path is not None
    return path


@pytest.mark.parametrize("times", [1, 3])
def test_path_text_is_parsed_to_same_record(times: int) -> None:
    path = failed(times)
    assert str(path) == f"2 {times} {NOW} {NOW + 5000 + GRACE_MS} 7 Connection refused"
    assert Path.parse(str(path)) == path


def test_path_failed_closes_gate_until_void() -> None:
    path = failed(1)
    assert path.condition(NODE) is Condition.PROBING
    assert failed(3).condition(NODE) is Condition.DISABLED
    assert gate(NODE, None, NOW)
    assert not gate(NODE, path, NOW)
    assert gate(NODE, path, path.until_ms)
    assert gate(replace(NODE, epoch=8), path, NOW)
    frozen = replace(NODE, state=State.PROBING)
    assert not gate(frozen, path, path.until_ms)
    assert is_void(path, None, NOW)


@pytest.mark.parametrize("state", State)
def test_gate_without_record_depends_on_operator_only(state: State) -> None:
    assert gate(replace(NODE, state=state), None, NOW) is (state is not State.DOWN)


def test_as_seen_is_own_record_while_gate_is_closed() -> None:
    path = failed(3)
    seen = as_seen(NODE, path, NOW)
    assert (seen.condition, seen.no_tries, seen.last_attempt) == (Condition.DISABLED, 3, 1000)
    for other in (None, replace(path, state=State.UP), replace(path, epoch=8)):
        assert as_seen(NODE, other, NOW) is NODE
    down = replace(NODE, state=State.DOWN)
    assert as_seen(down, path, NOW) is down
