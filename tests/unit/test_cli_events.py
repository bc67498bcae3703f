"""Options and output of `clusterer events`; no server runs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clusterer.cli.events import described
from clusterer.errors import InvalidArgument
from clusterer.services.admin.events import Filter, as_json, parse_since
from clusterer.store.audit import AuditEvent

NOW = 1_000_000.0


def event(**changes: object) -> AuditEvent:
    values: dict[str, object] = {
        "id": "999990500-3",
        "cluster_id": 1,
        "protocol": "bin",
        "machine_id": 2,
        "url": "bin:192.0.2.2:5566",
        "event": "send failed",
        "by": "delivery of sender 1",
        "reason": "Connection refused",
        "before": "up",
        "after": "probing",
        "no_tries": 1,
        "failed_attempts": 3,
    }
    return AuditEvent(**(values | changes))  # type: ignore[arg-type]  # fields of the event


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", NOW - 90),
        ("30m", NOW - 1800),
        ("2h", NOW - 7200),
        (" 2 H ", NOW - 7200),
        ("0.5d", NOW - 43200),
        ("1w", NOW - 604800),
        ("99999w", 0.0),
        ("1970-01-02T00:00:00Z", 86400.0),
        ("1970-01-02 02:00+02:00", 86400.0),
    ],
)
def test_events_since_is_age_or_time(text: str, at: float) -> None:
    assert parse_since(text)(NOW) == at


def test_events_time_without_zone_is_local() -> None:
    assert parse_since("2026-11-22")(NOW) == datetime(2026, 11, 22).timestamp()  # noqa: DTZ001


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2y", "yesterday", "2026-13-01", "nan h"])
def test_events_other_since_is_refused_with_advice(text: str) -> None:
    with pytest.raises(InvalidArgument, match="2h"):
        parse_since(text)(NOW)


def test_events_line_has_change_operator_and_reason() -> None:
    assert described(event()) == (
        "cluster 1:bin node 2 (bin:192.0.2.2:5566): up -> probing, tries 1/3: "
        "send failed by delivery of sender 1: Connection refused"
    )
    assert described(event(reason="")).endswith("send failed by delivery of sender 1")


def test_events_reason_control_characters_are_escaped() -> None:
    assert "\x1b" not in described(event(reason="\x1b[2Jgone\nnext"))
    assert "\n" not in described(event(reason="\x1b[2Jgone\nnext"))


def test_events_json_has_time_in_both_forms() -> None:
    found = as_json(event())
    assert found["at"] == 999_990.5
    assert datetime.fromisoformat(found["time"]) == datetime.fromtimestamp(999_990.5, UTC)
    assert (found["machine_id"], found["reason"]) == (2, "Connection refused")


def test_events_filter_selects_node_and_time() -> None:
    assert event() in Filter()
    assert event() in Filter(since=999_990.5, machine_id=2)
    assert event() not in Filter(since=999_990.6)
    assert event() not in Filter(machine_id=3)
