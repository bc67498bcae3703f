"""Finds the fragments of a rendered page, and those that differ between two renderings.

A fragment is an element with an ``id`` and the attribute ``data-live`` (without a value). Fragments
may contain fragments. A fragment has changed if its own text has changed: its HTML without the
fragments inside, of which only the ids count. So a table body with one changed row sends the row;
a table body with one row more or less sends the body. A fragment that may appear or disappear
must stand in another fragment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

_MARK = "data-live"
_OPENING = re.compile(r'<([a-z][a-z0-9]*)((?:\s+[a-zA-Z:-]+(?:="[^"]*")?)*)\s*>')
_VALUE = re.compile(r'"[^"]*"')
_ID = re.compile(r'\sid="([^"]+)"')

Marks = Mapping[str, int]
"""id → hash of the fragment's own text, of one rendering."""


@dataclass(frozen=True, slots=True)
class _Span:
    id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fragments:
    """The fragments of one rendering, in the order of the page."""

    html: str
    spans: tuple[_Span, ...]
    marks: Marks

    def changed_since(self, marks: Marks) -> dict[str, str]:
        """Return the fragments that differ from another rendering: id → HTML of the element.

        A fragment inside a returned one is not returned itself.
        """
        changed, done = {}, -1
        for span in self.spans:
            if span.start < done or marks.get(span.id) == self.marks[span.id]:
                continue
            if span.id in marks:
                changed[span.id] = self.html[span.start : span.end]
                done = span.end
        return changed

    def outermost(self) -> dict[str, str]:
        """Return all fragments that are in no other: id → HTML of the element."""
        found, done = {}, -1
        for span in self.spans:
            if span.start >= done:
                found[span.id] = self.html[span.start : span.end]
                done = span.end
        return found


def fragments_of(html: str) -> Fragments:
    """Return the fragments of a page whose values are all escaped.

    Raises `ValueError` if two fragments have one id, or if an element does not end.
    """
    spans = tuple(_spans(html))
    return Fragments(html, spans, _marks(html, spans))


def _spans(html: str) -> Iterator[_Span]:
    seen: set[str] = set()
    at = html.find(_MARK)
    while at >= 0:
        tag = _OPENING.match(html, html.rfind("<", 0, at))
        # The mark may also stand in a text or in the value of an attribute.
        if (
            tag
            and tag.end() > at
            and _MARK in _VALUE.sub("", tag[2])
            and (name := _ID.search(tag[2]))
        ):
            if name[1] in seen:
                raise ValueError(f"two fragments have the id {name[1]}")
            seen.add(name[1])
            yield _Span(name[1], tag.start(), _end(html, tag[1], tag.end()))
            at = tag.end()
        at = html.find(_MARK, at + len(_MARK))


def _end(html: str, tag: str, at: int) -> int:
    depth = 1
    for found in _tags(tag).finditer(html, at):
        depth += -1 if found[1] else 1
        if not depth:
            return html.index(">", found.end()) + 1
    raise ValueError(f"an element {tag} does not end")


@cache
def _tags(tag: str) -> re.Pattern[str]:
    return re.compile(rf"<(/?){tag}(?=[\s>])")


def _marks(html: str, spans: tuple[_Span, ...]) -> Marks:
    """Hash each fragment's own text: a fragment inside stands for itself with its id."""
    own: dict[str, list[str]] = {span.id: [] for span in spans}
    open_: list[_Span] = []
    at = 0

    def close(until: int) -> None:
        nonlocal at
        while open_ and open_[-1].end <= until:
            ended = open_.pop()
            own[ended.id].append(html[at : ended.end])
            at = ended.end

    for span in spans:
        close(span.start)
        if open_:
            own[open_[-1].id] += (html[at : span.start], "\0", span.id, "\0")
        open_.append(span)
        at = span.start
    close(len(html))
    return {name: hash("".join(parts)) for name, parts in own.items()}
