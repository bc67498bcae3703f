"""Names of tests: test_<unit>_<condition>_<result>, so that ``pytest -k`` is usable."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.docs import ROOT

MOST_CHARACTERS = 60
NO_UNIT = re.compile(r"test_(a|an|the|it|of|what|who|which|when)_")
"""Words at the beginning where a name has its unit."""

Names = list[tuple[str, str]]


@pytest.fixture(scope="module")
def names() -> Names:
    """Each test's file and name, found once for all tests: to parse all files takes 2 s of CPU."""
    return [
        (path.name, node.name)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_")
    ]


def test_naming_of_tests_has_at_most_60_characters(names: Names) -> None:
    assert [(path, name) for path, name in names if len(name) > MOST_CHARACTERS] == []


def test_naming_of_tests_begins_with_the_unit(names: Names) -> None:
    assert [(path, name) for path, name in names if NO_UNIT.match(name)] == []


def test_naming_finds_the_names_of_this_file(names: Names) -> None:
    own = {name for path, name in names if path == Path(__file__).name}
    assert "test_naming_finds_the_names_of_this_file" in own
