"""Rows are good or rejected one by one, each with its id, column and reason."""

from __future__ import annotations

import socket
from decimal import Decimal
from typing import Any

import pytest

from clusterer.errors import InvalidArgument
from clusterer.membership import Node, State
from clusterer.membership.columns import StateColumns
from clusterer.provisioning.names import Names
from clusterer.provisioning.rows import RejectedRow, state_columns, validate
from clusterer.provisioning.schema import SETTING_OF_COLUMN

COLUMNS = {name: f"the_{name}" for name in SETTING_OF_COLUMN}


def row(**changes: Any) -> dict[str, Any]:
    good = {
        "id": 1,
        "cluster_id": 1,
        "machine_id": 1,
        "url": "bin:192.168.0.5:5566",
        "state": 1,
        "last_attempt": 0,
        "failed_attempts": 3,
        "no_tries": 0,
        "duration": 30,
        "description": "Node A",
    }
    return good | changes


def _lookup(name: str) -> list[str]:
    if name == "sip1.example.org":
        return ["10.0.0.1"]
    raise socket.gaierror(-2, "Name or service not known")


def check(*rows: dict[str, Any]) -> tuple[list[Node], list[RejectedRow]]:
    return validate(rows, COLUMNS, Names(_lookup))


def test_good_row_becomes_a_node() -> None:
    assert check(row(state=2, no_tries=1, last_attempt=1_700_000_000)) == (
        [
            Node(
                id=1,
                cluster_id=1,
                machine_id=1,
                url="bin:192.168.0.5:5566",
                protocol="bin",
                host="192.168.0.5",
                port=5566,
                state=State.PROBING,
                last_attempt=1_700_000_000,
                failed_attempts=3,
                no_tries=1,
                duration=30,
                description="Node A",
            )
        ],
        [],
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": "  bin:10.0.0.1:1  "}, {"url": "bin:10.0.0.1:1", "port": 1}),
        ({"url": b"bin:10.0.0.1:1"}, {"url": "bin:10.0.0.1:1"}),
        ({"description": None}, {"description": ""}),
        ({"description": "Node A   "}, {"description": "Node A"}),
        ({"machine_id": 2**31 - 1}, {"machine_id": 2**31 - 1}),
        ({"machine_id": "7 "}, {"machine_id": 7}),
        ({"machine_id": Decimal(7)}, {"machine_id": 7}),
        ({"url": b"bin:10.0.0.1:1\0\0\0"}, {"url": "bin:10.0.0.1:1", "port": 1}),
        ({"description": "a\x1b[31m\r\nb\x9bc"}, {"description": "a [31m b c"}),
        ({"failed_attempts": 0, "duration": 0}, {"failed_attempts": 0, "duration": 0}),
        ({"url": "bin:sip1.example.org:1"}, {"host": "10.0.0.1", "port": 1}),
        ({"url": "udp:10.0.0.1:5060"}, {"protocol": "udp"}),
    ],
)
def test_rows_unusual_valid_values_are_accepted(
    changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    (node,), rejected = check(row(**changes))
    assert rejected == []
    assert {name: getattr(node, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        *((name, None, "null") for name in SETTING_OF_COLUMN if name != "description"),
        *(
            (name, -1, "negative: -1")
            for name in SETTING_OF_COLUMN
            if name not in ("url", "description")
        ),
        ("id", 0, "0 is not from 1 to 2147483647"),
        ("cluster_id", 0, "0 is not from 1 to 2147483647"),
        ("machine_id", 2**31, "2147483648 is not from 1 to 2147483647"),
        ("state", 3, "3 is not from 0 to 2"),
        ("last_attempt", 2**64 - 1, "18446744073709551615 is not from 0 to 9007199254740992"),
        ("duration", "soon", "'soon' is not a whole number"),
        ("duration", "", "'' is not a whole number"),
        ("duration", "1_0", "'1_0' is not a whole number"),
        ("machine_id", "\uff12", "'\uff12' is not a whole number"),
        ("duration", 1.5, "1.5 is not a whole number"),
        ("duration", float("nan"), "nan is not a whole number"),
        ("duration", float("inf"), "inf is not a whole number"),
        ("duration", object, "<class 'object'> is not a whole number"),
        ("url", "", "'' is not protocol:host:port (IPv6 addresses stand in brackets)"),
        ("url", "bin:10.0.0.1:0", "port '0' is not a number from 1 to 65535"),
        (
            "url",
            "bin:gone.example.org:1",
            "'gone.example.org' does not resolve: Name or service not known",
        ),
    ],
)
def test_bad_row_is_named_with_id_column_and_reason(
    column: str, value: object, reason: str
) -> None:
    bad = row(id=7, machine_id=2) | {column: value}
    nodes, rejected = check(row(), bad)
    shown: Any = value if column == "id" else 7
    assert [node.id for node in nodes] == [1]
    assert rejected == [RejectedRow(shown, f"the_{column}", reason)]


def test_rows_reason_quotes_at_most_a_part() -> None:
    for column in ("url", "duration"):
        _, (rejected,) = check(row(**{column: "9" * 1_000_000}))
        assert len(rejected.reason) < 200
        assert "…" in rejected.reason


def test_rejection_reads_as_a_sentence() -> None:
    assert str(RejectedRow(7, "state", "null")) == "row 7, column 'state': null"


def test_id_that_is_no_number_is_shown_as_text() -> None:
    _, (rejected,) = check(row(id=b"x"))
    assert rejected.id == "b'x'"


def test_first_of_two_rows_for_one_machine_counts() -> None:
    nodes, rejected = check(row(id=1), row(id=2), row(id=3, cluster_id=2), row(id=4))
    assert [node.id for node in nodes] == [1, 3]
    reason = "doubled: node 1 of cluster 1 is in row 1 already"
    assert rejected == [
        RejectedRow(2, "the_machine_id", reason),
        RejectedRow(4, "the_machine_id", reason),
    ]


def test_bad_row_does_not_take_the_machines_place() -> None:
    nodes, rejected = check(row(id=1, url="bin:gone.example.org:1"), row(id=2, state=9), row(id=3))
    assert [node.id for node in nodes] == [3]
    assert [found.id for found in rejected] == [1, 2]


def test_state_columns_of_a_row_name_what_is_wrong() -> None:
    good = {"state": 2, "no_tries": 1, "last_attempt": 9}
    assert state_columns(good, COLUMNS) == StateColumns(2, 1, 9)
    with pytest.raises(InvalidArgument, match="column 'the_no_tries': null"):
        state_columns(good | {"no_tries": None}, COLUMNS)


def test_state_columns_survive_their_text() -> None:
    columns = StateColumns(2, 1, 1_700_000_000)
    assert str(columns) == "2 1 1700000000"
    assert StateColumns.parse(str(columns)) == columns
    with pytest.raises(ValueError, match="not enough values"):
        StateColumns.parse("2 1")
