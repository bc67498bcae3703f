"""The six words of the style guide: each hides the component that acts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs import DOCS, ROOT

_WORDS = ("nobody", "somebody", "whoever", "whom", "anew", "everybody")
SIX_WORDS = re.compile(
    "|".join(rf"(?:(?<![a-z]){w}|{w.title()}|{w.upper()})(?![a-z])" for w in _WORDS)
)
"""Words of identifiers count as well: an underscore or a capital letter separates them."""

PLACES = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    DOCS,
    *(ROOT / name for name in ("clusterer", "workers", "scheduler", "scripts", "tests")),
)
EXCEPT = (DOCS / "glossary.md", Path(__file__))
SUFFIXES = {".md", ".py", ".lua", ".yml", ".json", ".toml", ".service", ".target", ".sh", ""}


def texts(place: Path) -> Iterator[Path]:
    """Yield the files of a folder that have text, or the file itself."""
    found = sorted(place.rglob("*")) if place.is_dir() else [place]
    yield from (f for f in found if f.is_file() and f.suffix in SUFFIXES and f not in EXCEPT)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_texts_have_none_of_the_six_words(place: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts(place)
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if SIX_WORDS.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["Nobody listens.", "_nobody_cares", "_NobodyToTell", "by whom"])
def test_six_words_are_found_in_prose_and_names(text: str) -> None:
    assert SIX_WORDS.search(text)


@pytest.mark.parametrize("text", ["sometimes", "renewal", "manewhom"])
def test_six_words_inside_other_words_are_no_hit(text: str) -> None:
    assert not SIX_WORDS.search(text)
