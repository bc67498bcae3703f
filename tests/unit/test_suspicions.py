"""Suspicions: which probers are asked, and what becomes of a suspicion without an ack."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.membership.suspicions import (
    PRESENT_MS,
    VOID_MS,
    WIDEN_MS,
    WINDOW_MS,
    Kind,
    Outcome,
    Suspicion,
    choose_asked,
    elsewhere,
    outcome,
)
from clusterer.membership.views import ClusterKey, ClusterView
from tests.support.cluster import CLUSTER, node

NOW = 1_000_000
BASE = Suspicion(NOW, 9, Kind.SUSPECT, frozenset({3, 4, 1}), frozenset(), all_asked=False)
EARLY, SOON, LATE = WIDEN_MS - 1, WIDEN_MS, WINDOW_MS


def suspicion(kind: Kind, nacks: str, *, all_asked: bool, wide: bool) -> Suspicion:
    said = {"none": frozenset[int](), "one": frozenset({3}), "all": BASE.asked}[nacks]
    return replace(BASE, kind=kind, nacks=said, all_asked=all_asked, wide=wide)


SUSPECT, PROBE = Kind.SUSPECT, Kind.PROBE
FALL, WAIT, WIDEN, NOTHING = Outcome.FALL, Outcome.WAIT, Outcome.WIDEN, Outcome.NOTHING

# nacks, all others were asked first, all others were asked later, age, kind, outcome
ROWS = [
    *(("all", True, False, age, kind, FALL) for age in (0, LATE) for kind in Kind),
    *(("all", False, False, age, kind, WIDEN) for age in (0, SOON, LATE) for kind in Kind),
    *(("all", False, True, age, kind, WAIT) for age in (0, LATE - 1) for kind in Kind),
    *(("all", False, True, LATE, kind, FALL) for kind in Kind),
    *((said, False, False, EARLY, SUSPECT, WAIT) for said in ("none", "one")),
    *((said, False, False, SOON, kind, WIDEN) for said in ("none", "one") for kind in Kind),
    *((said, True, False, SOON, SUSPECT, WAIT) for said in ("none", "one")),
    *((said, False, True, LATE - 1, PROBE, WAIT) for said in ("none", "one")),
    *(("one", flag, not flag, LATE, kind, FALL) for flag in (True, False) for kind in Kind),
    ("none", False, True, LATE, SUSPECT, FALL),
    ("none", True, False, LATE, SUSPECT, FALL),
    ("none", False, True, LATE, PROBE, NOTHING),
    ("none", True, False, LATE, PROBE, NOTHING),
]


@pytest.mark.parametrize(("nacks", "all_asked", "wide", "age_ms", "kind", "expected"), ROWS)
def test_outcome_row_gives_its_cell(
    *, nacks: str, all_asked: bool, wide: bool, age_ms: int, kind: Kind, expected: Outcome
) -> None:
    made = suspicion(kind, nacks, all_asked=all_asked, wide=wide)
    assert outcome(made, NOW + age_ms) is expected


def test_outcome_without_asked_probers_waits_for_window() -> None:
    alone = replace(BASE, asked=frozenset(), all_asked=True)
    assert outcome(alone, NOW) is WAIT
    assert outcome(alone, NOW + WINDOW_MS) is FALL


@pytest.mark.parametrize(
    ("version", "now_ms", "void"),
    [
        (9, NOW, False),
        (9, NOW + VOID_MS - 1, False),
        (9, NOW + VOID_MS, True),
        (9, NOW - 1, True),
        (10, NOW, True),
    ],
)
def test_suspicion_is_void_by_version_and_age(version: int, now_ms: int, void: bool) -> None:
    assert BASE.is_void(version, now_ms) is void


# -- text ------------------------------------------------------------------------------------------

ids = st.frozensets(st.integers(1, 2**31), max_size=4)


@given(
    st.builds(
        Suspicion,
        since_ms=st.integers(0, 2**52),
        version=st.integers(0, 2**52),
        kind=st.sampled_from(Kind),
        asked=ids,
        nacks=ids,
        all_asked=st.booleans(),
        wide=st.booleans(),
        reason=st.text().map(str.rstrip),
    )
)
def test_suspicion_text_is_parsed_to_same_suspicion(made: Suspicion) -> None:
    assert Suspicion.parse(str(made)) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 2 suspect 3 - 1",
        "1 2 other 3 - 1 0",
        "1 2 suspect 3, - 1 0",
        "1 2 suspect 3 - 2 0",
        "-1 2 suspect 3 - 1 0",
        "1 2 suspect 3 - 1 0x",
    ],
)
def test_suspicion_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no suspicion"):
        Suspicion.parse(text)


# -- who is asked ----------------------------------------------------------------------------------

HERE = dict.fromkeys(range(1, 7), NOW)


def choose(
    probers: dict[int, int],
    *,
    asking: int | None = 1,
    without: tuple[int, ...] = (2,),
    confirmed_by: int | None = None,
    turn: int = 0,
) -> tuple[frozenset[int], bool] | None:
    there = [prober for prober in probers if prober not in without]
    return choose_asked(
        probers,
        asking=asking,
        elsewhere=there,
        confirmed_by=confirmed_by,
        now_ms=NOW,
        turn=turn,
    )


def test_choice_is_three_others_in_turn_and_asking_one() -> None:
    turns = [choose(HERE, turn=turn) for turn in range(4)]
    assert turns == [
        (frozenset({1, *others}), False) for others in ((3, 4, 5), (4, 5, 6), (5, 6, 3), (6, 3, 4))
    ]


def test_choice_of_probe_job_has_no_asking_prober() -> None:
    assert choose(HERE, asking=None) == (frozenset({1, 3, 4}), False)


def test_choice_begins_with_prober_that_confirmed_last() -> None:
    found = choose(HERE, confirmed_by=6)
    assert found == (frozenset({1, 6, 3, 4}), False)


@pytest.mark.parametrize("confirmed_by", [2, 99])
def test_choice_ignores_confirming_prober_that_is_not_there(confirmed_by: int) -> None:
    assert choose(HERE, confirmed_by=confirmed_by) == choose(HERE)


def test_choice_asks_silent_probers_last() -> None:
    silent = HERE | {3: NOW - PRESENT_MS - 1, 4: NOW - PRESENT_MS - 1}
    assert choose(silent) == (frozenset({1, 5, 6, 3}), False)
    only_silent = {1: NOW, 3: NOW - 60_000}
    assert choose(only_silent) == (frozenset({1, 3}), True), "present until the sweep removes it"


@pytest.mark.parametrize(
    ("probers", "asking"),
    [({}, 1), ({1: NOW}, 1), ({1: NOW, 2: NOW}, 1), ({2: NOW}, None), ({2: NOW}, 1)],
)
def test_choice_without_another_host_is_none(probers: dict[int, int], asking: int | None) -> None:
    assert choose(probers, asking=asking) is None


def test_choice_of_all_others_says_so() -> None:
    for others in (1, 2, 3):
        probers = {1: NOW} | dict.fromkeys(range(3, 3 + others), NOW)
        assert choose(probers) == (frozenset(probers), True)


def test_choice_leaves_out_asking_prober_that_cannot_answer() -> None:
    assert choose({3: NOW}) == (frozenset({3}), True), "no heartbeat yet"
    assert choose({1: NOW, 3: NOW}, without=(1,)) == (frozenset({3}), True), "on the node's host"


def views(*nodes: tuple[int, str], cluster_id: int = 1) -> dict[ClusterKey, ClusterView]:
    key = CLUSTER._replace(cluster_id=cluster_id)
    return {key: ClusterView.of(key, 1, [node(i, host=host) for i, host in nodes])}


@pytest.mark.parametrize(
    ("seen", "known", "expected"),
    [
        ("10.0.0.2", views((1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.3")), {1, 3}),
        ("10.0.0.2", views((1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.2")), {1}),
        ("127.0.0.2", views((1, "127.0.0.1"), (2, "127.0.0.2"), (3, "::1")), set()),
        ("10.0.0.2", views((3, "10.0.0.2"), cluster_id=5), {1}),
        ("10.0.0.2", views((2, "10.9.0.2"), (3, "10.9.0.2"), cluster_id=5), {1}),
        ("10.0.0.2", {}, {1, 3}),
    ],
)
def test_elsewhere_is_other_address_in_every_cluster(
    seen: str, known: dict[ClusterKey, ClusterView], expected: set[int]
) -> None:
    assert elsewhere(node(2, host=seen), [1, 2, 3], known) == expected
