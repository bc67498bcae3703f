"""Rules for every page: links have targets, and every page is linked."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import docs
from tests.support.docs import DOCS, PAGES, ROOT
from tests.support.transcripts import sessions

every_page = pytest.mark.parametrize("page", PAGES, ids=docs.name_of)


def tracked_files() -> list[Path]:
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    paths = [ROOT / name for name in filter(None, listed.stdout.split("\0"))]
    return [path for path in paths if path.is_file()]


# -- links -----------------------------------------------------------------------------------------


def anchors(text: str) -> Iterator[str]:
    """Yield what GitHub makes of the headings: the second of a name gets -1, the third -2."""
    seen: Counter[str] = Counter()
    for heading in docs.headings(text):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        yield f"{name}-{seen[name]}" if seen[name] else name
        seen[name] += 1


def links(page: Path) -> list[str]:
    """Return the relative links of a page: inline ones, and definitions on lines of their own."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?m)^\[[^\]]+\]: *(\S+)", text)
    return [link for link in found if not link.startswith(("http://", "https://"))]


@every_page
def test_docs_links_have_targets(page: Path) -> None:
    for link in links(page):
        name, _, part = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not part or part in anchors(target.read_text(encoding="utf-8")), link


def test_docs_pages_named_exist() -> None:
    """In code, units, alerts and scripts, which no other test of the docs reads."""
    missing = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in tracked_files()
        for name in re.findall(
            r"\bdocs/[\w./-]*\w", path.read_text(encoding="utf-8", errors="replace")
        )
        if not (ROOT / name).exists()
    }
    assert missing == set()


def test_docs_every_page_is_linked() -> None:
    for page in DOCS.rglob("*.md"):
        above = ROOT / "README.md" if page.parent == DOCS else page.parent.with_suffix(".md")
        targets = {(above.parent / link.partition("#")[0]).resolve() for link in links(above)}
        assert page.resolve() in targets, docs.name_of(page)


# -- what commands print ---------------------------------------------------------------------------

COMPARED = {
    "docs/benchmarks/run.md": 4,
    "docs/commands/console.md": 7,
    "docs/commands/demo.md": 1,
    "docs/commands/doctor.md": 4,
    "docs/commands/events.md": 3,
    "docs/commands/list.md": 5,
    "docs/commands/live.md": 3,
    "docs/commands/nodes.md": 11,
    "docs/commands/packets.md": 3,
    "docs/commands/paths.md": 3,
    "docs/commands/processes.md": 6,
    "docs/commands/table.md": 8,
    "docs/deployment.md": 1,
    "docs/getting-started.md": 6,
    "docs/mi.md": 4,
    "docs/monitoring.md": 2,
    "docs/parameters.md": 1,
    "docs/redis-keys": len(docs.sample_keys()),
}
"""How many outputs each page shows. Each is compared with a run: in tests/integration/test_docs_*,
tests/e2e/test_docs_story.py, or beside the other tests of the command. So is one that is added.
(A guard in Redis alone is not: it is there for moments.)"""


def test_docs_every_output_is_compared_with_a_run() -> None:
    shown: Counter[str] = Counter()
    for page in PAGES:
        name = docs.name_of(page)
        known = name if name in COMPARED else docs.name_of(page.parent)
        text = page.read_text(encoding="utf-8")
        shown[known] += sum(bool(printed) for _, printed in sessions(text))
    assert +shown == COMPARED


# -- paths of a developer's machine ----------------------------------------------------------------


def test_docs_machine_paths_are_absent() -> None:
    places = re.compile("|".join(rf"(?<![\w.]){re.escape(f'/{top}/')}" for top in ("work", "root")))
    found = [
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if places.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []
