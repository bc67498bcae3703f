"""The docs against the code: Redis keys, API, messages, the README's state diagram."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from clusterer import Clusterer, errors
from clusterer.membership import TRANSITIONS, Condition, Event, Node, State, apply
from clusterer.membership.paths import PATH_TRANSITIONS
from clusterer.membership.paths import Path as PathRecord
from scripts.benchmarks.measures import known_keys
from tests.support import docs
from tests.support.docs import PAGES, ROOT

# -- redis-keys ------------------------------------------------------------------------------------

COMMANDS_OF_TYPE = {
    "Set": {"SMEMBERS"},
    "Hash": {"HGETALL"},
    "String": {"GET"},
    "Sorted set": {"ZRANGE"},
    "List": {"LRANGE"},
    "Stream": {"XRANGE", "XREVRANGE"},
}


def test_docs_keys_and_sections_agree() -> None:
    assert sorted(docs.documented_keys()) == sorted(docs.sample_keys())


@pytest.mark.parametrize("key", docs.sample_keys())
def test_docs_every_key_has_type_and_redis_cli_output(key: str) -> None:
    section = docs.key_section(key)
    kind = re.match(r"[A-Z][a-z ]*", section)
    assert kind, f"{key}: begins with its type"
    word = next(k for k in sorted(COMMANDS_OF_TYPE, key=len, reverse=True) if section.startswith(k))
    (block,) = docs.blocks(section, "console")
    line, *output = block.splitlines()
    assert line.split()[:2] == ["$", "redis-cli"]
    assert line.split()[2] in COMMANDS_OF_TYPE[word]
    assert line.split()[3] == key
    assert output


def test_docs_table_of_keys_has_each_with_type() -> None:
    rows = docs.table_rows(docs.read("redis-keys.md"), columns=3)[1:]
    listed = {re.sub(r"^\[`(.+)`\].*", r"\1", link): kind for link, kind, _ in rows}
    assert sorted(listed) == sorted(docs.sample_keys())
    for key, kind in listed.items():
        assert docs.key_section(key).startswith(kind.capitalize()), key


def test_docs_keys_named_in_other_pages_exist() -> None:
    """With S, R, N, QUEUE, MODULE for what differs."""
    letters = {"S": "1", "R": "1", "QUEUE": "clusterer-delivery", "MODULE": "ratelimit"}
    known = set(docs.sample_keys())
    for page in PAGES:
        for found in re.findall(r"clusterer:[a-z0-9A-Z:-]+", page.read_text(encoding="utf-8")):
            parts = [letters.get(part, part) for part in found.rstrip(":").split(":")]
            name = ":".join(parts)
            assert name in known or name == "clusterer:latest", (docs.name_of(page), found)


# -- api.md ----------------------------------------------------------------------------------------


def test_docs_every_public_method_and_error_is_described() -> None:
    page = docs.read("api.md")
    names = [name for name in dir(Clusterer) if not name.startswith("_")]
    assert [name for name in names if not re.search(rf"`{name}\b", page)] == []
    raised = [
        n for n, o in inspect.getmembers(errors, inspect.isclass) if o.__module__ == errors.__name__
    ]
    assert [name for name in raised if f"`{name}`" not in page] == []


def test_docs_signatures_are_those_of_code() -> None:
    found = dict(re.findall(r"(?m)^\| `(\w+)\((.*?)\)` \|", docs.read("api.md")))
    assert len(found) >= 12
    for name, arguments in found.items():
        real = list(inspect.signature(getattr(Clusterer, name)).parameters)[1:]
        assert [word.partition("=")[0].strip() for word in arguments.split(",") if word] == real


# -- troubleshooting -------------------------------------------------------------------------------


def source_pieces() -> str:
    """Return the constant parts of all strings in the code, one a line."""
    return "\n".join(
        piece
        for folder in ("clusterer", "workers", "scheduler")
        for path in (ROOT / folder).rglob("*.py")
        for piece in string_pieces(path)
    )


def string_pieces(path: Path) -> Iterator[str]:
    for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield from re.split(r"%[-.\d]*[sdrg]", found.value)


def test_docs_quoted_messages_are_those_of_code() -> None:
    """A line of a ```text block is a message; … stands for what differs."""
    pieces = source_pieces()
    lines = [
        line
        for block in docs.blocks(docs.folder("troubleshooting"), "text")
        for line in block.splitlines()
    ]
    assert len(lines) >= 20
    for line in lines:
        for piece in line.split("…"):
            assert piece.strip(" :") in pieces, (line, piece)


# -- figures in README.md --------------------------------------------------------------------------


def test_docs_readme_benchmarks_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"`scripts/bench ([^`]+)`", readme)
    assert commands
    assert {name for command in commands for name in command.split()} <= set(known_keys())


# -- the state diagram in README.md ----------------------------------------------------------------

NOW = 1_000_000


def samples() -> Iterator[Node]:
    """Yield nodes of every state, just before and at their last try, before and after duration."""
    base = Node(1, 1, 1, "bin:192.0.2.1:5566", "bin", "192.0.2.1", 5566, failed_attempts=3)
    for state, tries, age in product(State, (0, 1, 2, 3, 4), (0, 29, 30, 31)):
        yield replace(base, state=state, no_tries=tries, last_attempt=NOW - age)


def real_transitions() -> set[tuple[str, str, str]]:
    """Return (from, to, event) of everything that the table can do, without self loops."""
    assert {event for _, event in TRANSITIONS} == set(Event)
    steps = ((n.condition, apply(n, e, NOW).condition, e) for n, e in product(samples(), Event))
    return {(a.value, b.value, e.value) for a, b, e in steps if a is not b}


def path_transitions() -> set[tuple[str, str, str]]:
    """Return the same of paths."""
    node, found = next(samples()), set()
    for (before, event), step in PATH_TRANSITIONS.items():
        for tries in range(1, 4) if before is not Condition.DISABLED else (3,):
            state = State.UP if before is Condition.UP else State.PROBING
            path = PathRecord(
                state, tries if before is not Condition.PROBING else tries - 1, 0, 1, 0
            )
            after = step(path, NOW)
            becomes = after.condition(node) if after else Condition.UP
            if becomes is not before:
                found.add((before.value, becomes.value, event.value))
    return found


def drawn_transitions(page: Path) -> set[tuple[str, str, str]]:
    text = page.read_text(encoding="utf-8")
    (diagram,) = [b for b in docs.blocks(text, "mermaid") if b.startswith("stateDiagram-v2")]
    words = "|".join(condition.value for condition in Condition)
    lines = re.findall(rf"(?m)^\s*({words})\s*-->\s*({words})\s*:\s*(.+)$", diagram)
    return {(a, b, e.strip()) for a, b, events in lines for e in events.split(",") if a != b}


def test_docs_readme_state_diagram_is_state_machine() -> None:
    assert drawn_transitions(ROOT / "README.md") == real_transitions()


def test_docs_diagram_of_paths_is_state_machine() -> None:
    assert drawn_transitions(docs.DOCS / "architecture.md") == path_transitions()
