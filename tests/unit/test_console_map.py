"""The console's map of a cluster: readable for 3 to 100 nodes, and safe for any text."""

from __future__ import annotations

import itertools
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from clusterer.console.network_map import MOST_ARROWS, MOST_NAMED, MOST_NODES, Map, draw
from clusterer.console.views import environment

CONDITIONS = ("up", "probing", "disabled", "down")
SIZES = (1, 2, 3, 4, 5, 7, 12, 13, 30, 50, 99, 100)


def nodes(count: int, condition: str = "up", first: int = 1) -> list[dict[str, Any]]:
    return [{"machine_id": first + i, "condition": condition} for i in range(count)]


def mixed(count: int) -> list[dict[str, Any]]:
    return [
        {"machine_id": i + 1, "condition": CONDITIONS[i % 5 if i % 5 < 4 else 0]}
        for i in range(count)
    ]


def path(sender: int, machine_id: int, condition: str = "probing") -> dict[str, Any]:
    return {"sender": sender, "machine_id": machine_id, "condition": condition}


def overlapping(found: Map) -> list[tuple[str, str]]:
    labels = [*(dot.label for dot in found.dots), *found.labels]
    return [
        (one.text, other.text)
        for one, other in itertools.combinations(labels, 2)
        if one.box.overlaps(other.box)
    ]


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("first", [1, 2_147_483_000], ids=["short ids", "long ids"])
def test_map_labels_never_overlap(count: int, first: int) -> None:
    every = [
        each | {"condition": CONDITIONS[i % 4]} for i, each in enumerate(nodes(count, first=first))
    ]
    up = [each["machine_id"] for each in every if each["condition"] == "up"]
    broken = [path(a, b) for a, b in itertools.permutations(up[:5], 2)]
    found = draw(every, broken)
    assert [dot.machine_id for dot in found.dots] == [each["machine_id"] for each in every]
    assert overlapping(found) == []


@pytest.mark.parametrize("count", SIZES)
def test_map_everything_is_inside_the_picture(count: int) -> None:
    found = draw(mixed(count), [])
    for dot in found.dots:
        box = dot.label.box
        assert box.left >= 0
        assert box.left + box.width <= found.width
        assert box.top >= 0
        assert dot.y + 7 <= found.height


@pytest.mark.parametrize("count", [3, 10, 100])
def test_map_dots_are_apart(count: int) -> None:
    places = [(dot.x, dot.y) for dot in draw(nodes(count), []).dots]
    for (x, y), (other_x, other_y) in itertools.combinations(places, 2):
        assert (x - other_x) ** 2 + (y - other_y) ** 2 >= 15**2


def test_map_broken_path_is_drawn_and_named() -> None:
    found = draw(nodes(3), [path(1, 2), path(2, 1, "disabled")])
    assert [arrow.words for arrow in found.arrows] == ["1 → 2 probing", "2 → 1 disabled"]
    assert {label.text for label in found.labels} == {"1 → 2 probing", "2 → 1 disabled"}
    there, back = (set(re.findall(r"Q(\S+ \S+)", arrow.curve)) for arrow in found.arrows)
    assert there != back, "a path and the path back are apart"


def test_map_small_cluster_has_paths_that_are_up() -> None:
    assert draw(nodes(3), []).mesh.count("M") == 3
    assert draw(nodes(3), [path(1, 2)]).mesh.count("M") == 2
    assert not draw(nodes(50), []).mesh


def test_map_dead_node_has_a_mark_and_no_arrows() -> None:
    every = [*nodes(5), {"machine_id": 9, "condition": "disabled"}]
    found = draw(every, [path(sender, 9) for sender in range(1, 6)])
    assert found.arrows == ()
    assert found.hidden_paths == 0
    assert [dot.label.text for dot in found.dots if dot.condition != "up"] == ["9 disabled"]


def test_map_host_that_is_cut_off_is_a_fan_without_names() -> None:
    found = draw(nodes(50), [path(3, machine_id) for machine_id in range(4, 40)])
    assert len(found.arrows) == 36 > MOST_NAMED
    assert found.labels == ()


def test_map_large_cluster_shows_trouble_only() -> None:
    every = nodes(1000)
    every[499]["condition"] = "disabled"
    found = draw(every, [path(7, 8)])
    assert [dot.machine_id for dot in found.dots] == [7, 8, 500]
    assert found.hidden_nodes == 997
    assert [arrow.words for arrow in found.arrows] == ["7 → 8 probing"]


def test_map_is_bounded_however_much_is_broken() -> None:
    broken = [path(a, b) for a, b in itertools.permutations(range(1, 31), 2)]
    found = draw(nodes(30), broken)
    assert len(found.arrows) == MOST_ARROWS
    assert found.hidden_paths == len(broken) - MOST_ARROWS
    found = draw(nodes(500, "disabled"), [])
    assert len(found.dots) == MOST_NODES
    assert found.hidden_nodes == 400
    assert overlapping(found) == []


def test_map_path_from_unknown_sender_is_left_out() -> None:
    assert draw(nodes(3), [path(77, 2), path(2, 77)]).arrows == ()
    assert draw([], []).dots == ()


@pytest.mark.parametrize("count", [3, 100])
def test_map_svg_is_well_formed_and_has_texts(count: int) -> None:
    html = rendered(mixed(count), [path(1, 5), path(5, 1)])
    root = ET.fromstring(html)  # noqa: S314 - made here
    texts = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert {"1", "2 probing", "3 disabled"} <= set(texts)
    assert any("1 → 5" in text for text in texts) == (count > 5)
    assert "Map of the cluster" in "".join(root.itertext())


def test_map_hostile_text_is_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    every = [*nodes(2), {"machine_id": 3, "condition": hostile}]
    html = rendered(every, [path(1, 2, hostile)])
    ET.fromstring(html)  # noqa: S314 - made here
    assert "<script" not in html


def rendered(every: list[dict[str, Any]], broken: list[dict[str, Any]]) -> str:
    text = (
        '{% import "map.html" as map %}'
        "<div>{{ map.picture(nodes, paths, '/clusters/1-bin') }}</div>"
    )
    return environment().from_string(text).render(nodes=every, paths=broken)
