"""Sparklines, the bar of past states, rates of samples, and numbers as the console shows them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from clusterer.console.charts import WIDTH, curve, spoken, timeline
from clusterer.console.pages.as_json import rates
from clusterer.console.views import number
from clusterer.store.history import Recorded, Sample

NOW = 1_795_390_000.0


def test_sparkline_spans_the_picture_and_starts_at_zero() -> None:
    points = re.findall(r"[ML](\S+) (\S+?)(?=[ML]|$)", curve([0, 5, 10]))
    assert points == [("0.0", "23.0"), ("50.0", "12.0"), ("100.0", "1.0")]


def test_sparkline_gap_breaks_the_line() -> None:
    assert curve([1, 1, None, 1, 1]).count("M") == 2


@pytest.mark.parametrize("values", [[], [1.0], [None, None], [1.0, None, 1.0]])
def test_sparkline_too_few_numbers_draw_nothing(values: list[float | None]) -> None:
    assert curve(values) == ""


def test_sparkline_in_words() -> None:
    assert spoken([None, 1.0, 4.5]) == "from 1 to 4.5 packets per second, last 4.5"
    assert spoken([]) == "no samples"


def test_rates_of_samples_have_gaps_where_a_count_went_back() -> None:
    counts = [(0.0, 100), (10.0, 150), (20.0, 30), (20.0, 30), (40.0, 50)]
    found = [Recorded(at, Sample(count, 0, 0, 0, 0)) for at, count in counts]
    assert rates(found, "sent_to") == [5.0, None, None, 1.0]
    assert rates(found[:1], "sent_to") == rates([], "sent_to") == []


def state(condition: str, since: float | None, until: float | None) -> dict[str, Any]:
    return {"condition": condition, "since": since, "until": until}


@pytest.mark.parametrize(
    ("age_s", "span"),
    [(60, "15 minutes"), (3000, "an hour"), (20_000, "6 hours"), (90_000, "24 hours")],
)
def test_timeline_shows_the_shortest_time_with_all_states(age_s: float, span: str) -> None:
    found = timeline([state("down", NOW - age_s, None)], NOW)
    assert found.span == span
    (part,) = found.parts
    assert 0 <= part.x < part.x + part.width <= WIDTH + 1


def test_timeline_states_are_in_order_and_differ_in_height() -> None:
    states = [
        state("up", None, NOW - 300),
        state("probing", NOW - 300, NOW - 297),
        state("disabled", NOW - 297, None),
    ]
    parts = timeline(states, NOW).parts
    assert [part.condition for part in parts] == ["up", "probing", "disabled"]
    assert parts[0].x == 0
    assert parts[2].x + parts[2].width == pytest.approx(WIDTH, abs=1)
    assert len({part.height for part in parts}) == 3
    assert parts[1].width >= 2, "a short state is seen"


def test_timeline_without_a_known_beginning_shows_a_day() -> None:
    (part,) = timeline([state("up", None, None)], NOW).parts
    assert (part.x, part.width) == (0, WIDTH)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (0, "0"),
        (5.0, "5"),
        (5.25, "5.2"),
        (123.4, "123"),
        (1_234_567, "1\u202f234\u202f567"),
    ],
)
def test_number_is_short(value: float | None, text: str) -> None:
    assert number(value) == text
