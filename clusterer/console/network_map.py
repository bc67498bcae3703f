"""The map of a cluster: where its nodes and paths are drawn. Pure functions.

The nodes stand on two arcs, evenly spaced from top to bottom, and their labels outside: so no label
covers another, however many nodes there are, and no straight line between two nodes passes through
a third. Broken paths are arrows, bent to the left, so that a path and the path back are apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import hypot, sqrt
from typing import Any

MOST_NODES = 100
"""Nodes that are drawn; of larger clusters only nodes with faults, and the ends of broken paths.
"""
MOST_ARROWS = 200
"""Broken paths that are drawn."""
MOST_NAMED = 8
"""Broken paths of one node that get a label each; more get one label together."""
FULL_MESH = 8
"""Nodes up to which the paths that are up are drawn as well."""

ROW, LOW_ROW = 24.0, 17.0
"""Distance of two nodes above each other; the second of more than `MOST_HIGH_ROWS` nodes."""
MOST_HIGH_ROWS = 20
CHAR = 7.3
"""Width of a character of a label: an upper bound for digits and small letters at 12 pixels."""
DOT = 7.0
"""Radius of a node."""
MARGIN = 20.0

_ALONG = (0.5, 0.38, 0.62, 0.27, 0.73)
"""Places on an arrow at which its label may stand, the best first."""
_ASIDE = (0.0, -60.0, 60.0, -120.0, 120.0)
"""Distances from the arrow at which its label may stand, the best first."""
_LEAST_HEIGHT = 150.0
_FLATNESS = 0.65
"""Least height of the arcs, as a share of their width."""
_DEPTH = 40.0
"""Least distance of the control point of an arrow between nodes of one arc from these nodes."""
_BEND = 0.12
"""Distance of an arrow's middle from the straight line, as a share of its length."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that a text covers."""

    left: float
    top: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        """Whether two rectangles share a point."""
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.top < other.top + other.height
            and other.top < self.top + self.height
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A text; ``x`` is its start, middle or end as ``anchor`` says, ``y`` its baseline."""

    text: str
    x: float
    y: float
    anchor: str

    @property
    def box(self) -> Box:
        """The rectangle that the text covers."""
        width = CHAR * len(self.text)
        shift = {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return Box(self.x - shift, self.y - 11, width, 15)


@dataclass(frozen=True, slots=True)
class Dot:
    """A node."""

    machine_id: int
    x: float
    y: float
    condition: str
    label: Label


@dataclass(frozen=True, slots=True)
class Arrow:
    """A path that is not up, from a sender to a node."""

    sender: int
    machine_id: int
    curve: str
    """The attribute ``d`` of an SVG path."""
    words: str
    """Such as ``1 → 2 probing``."""


@dataclass(frozen=True, slots=True)
class Map:
    """A picture of a cluster."""

    width: float
    height: float
    dots: tuple[Dot, ...]
    arrows: tuple[Arrow, ...]
    labels: tuple[Label, ...]
    """Names of arrows."""
    mesh: str
    """The paths that are up, as the attribute ``d`` of one SVG path; empty in larger clusters."""
    hidden_nodes: int
    """Nodes that are not drawn."""
    hidden_paths: int
    """Broken paths that are not drawn."""


def draw(nodes: Sequence[Mapping[str, Any]], paths: Iterable[Mapping[str, Any]]) -> Map:
    """Return the map of a cluster.

    ``nodes``: machine_id and condition of each node; ``paths``: sender, machine_id and condition of
    each broken path. Both as the content of the page has them.
    """
    known = {node["machine_id"]: node["condition"] for node in nodes}
    # The state of a node that is not up concerns all senders: one mark says it, not an arrow each.
    broken = [
        path for path in paths if path["sender"] in known and known.get(path["machine_id"]) == "up"
    ]
    shown = _shown(known, broken)
    places = _places(shown, known)
    drawn = [path for path in broken if path["sender"] in places and path["machine_id"] in places]
    dots = tuple(places.values())
    right = max((dot.label.box.left + dot.label.box.width for dot in dots), default=0.0)
    height = max((dot.y for dot in dots), default=0.0) + MARGIN
    arrows = [_arrow(path, places) for path in drawn[:MOST_ARROWS]]
    return Map(
        round(right + MARGIN, 1),
        round(height, 1),
        dots,
        tuple(arrows),
        tuple(_named(drawn[:MOST_ARROWS], places, right)),
        _mesh(places, broken) if len(known) <= FULL_MESH else "",
        len(known) - len(shown),
        len(broken) - len(arrows),
    )


def _shown(known: Mapping[int, str], broken: Iterable[Mapping[str, Any]]) -> list[int]:
    if len(known) <= MOST_NODES:
        return sorted(known)
    troubled = {machine_id for machine_id, condition in known.items() if condition != "up"}
    ends = {end for path in broken for end in (path["sender"], path["machine_id"])}
    return sorted(troubled | ends)[:MOST_NODES]


def _places(shown: Sequence[int], known: Mapping[int, str]) -> dict[int, Dot]:
    """Return the dots: the first half on the right arc from top to bottom, the others back up."""
    half = (len(shown) + 1) // 2
    right, left = shown[:half], shown[half:][::-1]
    room = max((CHAR * len(_words(i, known[i])) for i in left), default=0.0)
    row = ROW if half <= MOST_HIGH_ROWS else LOW_ROW
    radius_x = min(280.0, 60.0 + 14.0 * len(shown))
    middle = max(_LEAST_HEIGHT / 2, row * half / 2, radius_x * _FLATNESS)
    center_x = MARGIN + room + DOT * 2 + radius_x
    found = {}
    for side, machine_ids in ((1, right), (-1, left)):
        step = 2 * middle / max(1, len(machine_ids))
        for at, machine_id in enumerate(machine_ids):
            from_middle = (at + 0.5) * step - middle
            reach = sqrt(max(0.0, 1 - (from_middle / (middle * 1.05)) ** 2))
            x, y = center_x + side * radius_x * reach, MARGIN + middle + from_middle
            anchor = "start" if side > 0 else "end"
            text = _words(machine_id, known[machine_id])
            label = Label(text, round(x + side * DOT * 2, 1), round(y + 4, 1), anchor)
            condition = known[machine_id]
            found[machine_id] = Dot(machine_id, round(x, 1), round(y, 1), condition, label)
    return dict(sorted(found.items()))


def _words(machine_id: int, condition: str) -> str:
    return str(machine_id) if condition == "up" else f"{machine_id} {condition}"


def _control(start: Dot, end: Dot) -> tuple[float, float]:
    """Return the control point of the curve from one node to another.

    Between two nodes of one arc the curve is bent to the inside, upward further than downward.
    """
    dx, dy = end.x - start.x, end.y - start.y
    if start.label.anchor == end.label.anchor:
        inward = -1 if start.label.anchor == "start" else 1
        depth = (_DEPTH + abs(dy) * _BEND * 2) * (1.0 if dy > 0 else 1.7)
        return (start.x + end.x) / 2 + inward * depth, (start.y + end.y) / 2
    return (start.x + end.x) / 2 + dy * _BEND * 2, (start.y + end.y) / 2 - dx * _BEND * 2


def _arrow(path: Mapping[str, Any], places: Mapping[int, Dot]) -> Arrow:
    start, end = places[path["sender"]], places[path["machine_id"]]
    x, y = _control(start, end)
    length = hypot(end.x - x, end.y - y) or 1.0
    gap = (DOT + 3) / length  # the tip of the arrow is outside the dot
    tip = end.x - (end.x - x) * gap, end.y - (end.y - y) * gap
    curve = f"M{start.x:.1f} {start.y:.1f}Q{x:.1f} {y:.1f} {tip[0]:.1f} {tip[1]:.1f}"
    return Arrow(start.machine_id, end.machine_id, curve, _name(path))


def _name(path: Mapping[str, Any]) -> str:
    return f"{path['sender']} → {path['machine_id']} {path['condition']}"


def _named(
    paths: Sequence[Mapping[str, Any]], places: Mapping[int, Dot], right: float
) -> list[Label]:
    """Return the names of arrows for which there is room: no name covers another text."""
    senders = Counter(path["sender"] for path in paths)
    nodes = Counter(path["machine_id"] for path in paths)
    taken = [dot.label.box for dot in places.values()]
    taken += [Box(dot.x - DOT, dot.y - DOT, DOT * 2, DOT * 2) for dot in places.values()]
    found: list[Label] = []
    for path in paths:
        if max(senders[path["sender"]], nodes[path["machine_id"]]) > MOST_NAMED:
            continue  # the list beside the picture names them
        label = _free(path, places, taken, right)
        if label is not None:
            taken.append(label.box)
            found.append(label)
    return found


def _free(
    path: Mapping[str, Any], places: Mapping[int, Dot], taken: Sequence[Box], right: float
) -> Label | None:
    """Return the name of an arrow where it covers no other text; None without such a place."""
    start, end = places[path["sender"]], places[path["machine_id"]]
    x, y = _control(start, end)
    for aside, t in product(_ASIDE, _ALONG):
        here_x = (1 - t) ** 2 * start.x + 2 * t * (1 - t) * x + t**2 * end.x + aside
        here_y = (1 - t) ** 2 * start.y + 2 * t * (1 - t) * y + t**2 * end.y
        label = Label(_name(path), round(here_x, 1), round(here_y + 4, 1), "middle")
        inside = label.box.left >= 0 and label.box.left + label.box.width <= right
        if inside and not any(label.box.overlaps(box) for box in taken):
            return label
    return None


def _mesh(places: Mapping[int, Dot], broken: Iterable[Mapping[str, Any]]) -> str:
    apart = {frozenset((path["sender"], path["machine_id"])) for path in broken}
    dots = [dot for dot in places.values() if dot.condition == "up"]
    return "".join(
        f"M{one.x} {one.y}L{other.x} {other.y}"
        for at, one in enumerate(dots)
        for other in dots[at + 1 :]
        if {one.machine_id, other.machine_id} not in apart
    )
