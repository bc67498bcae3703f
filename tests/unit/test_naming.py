"""Names of tests: test_<unit>_<condition>_<result>, so that ``pytest -k`` is usable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.docs import ROOT

MOST_CHARACTERS = 60
NO_UNIT = re.compile(r"test_(a|an|the|it|of|what|who|which|when)_")
"""Words at the beginning where a name has its unit."""


def names() -> Iterator[tuple[str, str]]:
    """Yield each test's file and name."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        nodes = ast.walk(ast.parse(path.read_bytes()))
        functions = (n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
        yield from ((path.name, f.name) for f in functions if f.name.startswith("test_"))


def test_naming_of_tests_has_at_most_60_characters() -> None:
    assert [(path, name) for path, name in names() if len(name) > MOST_CHARACTERS] == []


def test_naming_of_tests_begins_with_the_unit() -> None:
    assert [(path, name) for path, name in names() if NO_UNIT.match(name)] == []


def test_naming_finds_the_names_of_this_file() -> None:
    own = {name for path, name in names() if path == Path(__file__).name}
    assert "test_naming_finds_the_names_of_this_file" in own
