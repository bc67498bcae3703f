"""Reading the documentation: sections, tables, code blocks, the Redis keys it shows."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from clusterer.jobs import keys as job_keys
from clusterer.store import keys

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))

SAMPLE_ARGUMENTS: dict[str, object] = {
    "cluster_id": 1,
    "protocol": "bin",
    "machine_id": 2,
    "sender": 1,
    "receiver": 1,
    "registration": "ratelimit",
    "queue": "clusterer-delivery",
    "name": "5b1d8c0e8ff911f0a5c10242ac110002",
    "key": "rq:queue:clusterer-delivery",
    "token": "3f2b6c0d9a1e48c7b5d40e6f7a8b9c01",
}
"""What docs/redis-keys/ has for each parameter of a function in `keys`."""

_MODULES = (keys, job_keys)

PATTERNS = {
    "protocol": "[a-z0-9]+",
    "registration": r"[^:]+(#\d+)?",
    "queue": "[^:]+",
    "name": "[0-9a-f]{32}",
    "token": "[0-9a-f]{32}",
    "key": "rq:.+",
}
"""What else a parameter may be; the others are numbers."""


def read(name: str) -> str:
    """Return a page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    """Return a page's path as links in the README write it."""
    return page.relative_to(ROOT).as_posix()


def folder(name: str) -> str:
    """Return all pages of a folder of docs/, one after the other."""
    pages = sorted((DOCS / name).glob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def section(name: str, heading: str) -> str:
    """Return what stands under a heading of a page, subsections included."""
    return _section(read(name), heading)


def command_section(name: str) -> str:
    """Return what docs/commands/ has about a command."""
    return _section(folder("commands"), name)


def key_section(key: str) -> str:
    """Return what docs/redis-keys/ has about a key."""
    return _section(folder("redis-keys"), f"`{key}`")


def headings(text: str) -> list[str]:
    """Return all headings of a page, without those comments in code blocks that look like some."""
    return re.findall(r"(?m)^#+ (.+)$", _hide_blocks(text))


def _section(text: str, heading: str) -> str:
    parts = re.split(r"(?m)^(?=#{1,2} )", _hide_blocks(text))
    (found,) = [part for part in parts if part.startswith(f"## {heading}\n")]
    return _show_blocks(found.partition("\n")[2].strip())


def _hide_blocks(text: str) -> str:
    """Make comments in code blocks no headings."""
    return re.sub(r"(?ms)^```.*?^```", lambda m: m[0].replace("\n#", "\n\0#"), text)


def _show_blocks(text: str) -> str:
    return text.replace("\0", "")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in one language."""
    return re.findall(rf"(?ms)^ *```{language}\n(.*?)^ *```", text)


def table_rows(text: str, *, columns: int) -> list[list[str]]:
    """Return the cells of all table rows with so many columns, headings included."""
    rows = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) == columns]
    return [row for row in cells if not set(row[0]) <= set("- ")]


def examples(page: Path, mark: str = "a test runs this") -> list[str]:
    """Return the Python blocks that stand under a comment ``<!-- example: … -->`` with ``mark``."""
    text = page.read_text(encoding="utf-8")
    return re.findall(
        rf"<!-- example: [^>]*{re.escape(mark)} -->\n```python\n(.*?)```", text, re.DOTALL
    )


def clusterer_lines(text: str) -> Iterator[list[str]]:
    """Yield the words after ``clusterer`` of every command line: in blocks, indented, in code."""
    code = re.findall(r"(?ms)^ *```(?:console|sh)\n(.*?)^ *```", text)
    lines = [line for block in code for line in block.splitlines()]
    lines = [line.strip().removeprefix("$ ") for line in lines if not line.startswith("clusterer:")]
    lines += [line.strip() for line in re.findall(r"(?m)^ {4}\S.*$", text)]
    lines += re.findall(r"`((?:\.venv/bin/)?clusterer [^`]+)`", text.replace("\n", " "))
    for line in lines:
        match = re.match(r"(?:\.venv/bin/)?clusterer ([a-z-].*)", line)
        if match and not match[1].startswith(("COMMAND", "…")):
            words = shlex.split(re.sub(r"[\[\]]", " ", match[1].split(" #")[0].split(" | ")[0]))
            yield words


# -- keys ------------------------------------------------------------------------------------------


def sample_keys() -> list[str]:
    """Return every key of the store and of the jobs with the arguments that the page uses."""
    return [*_constants(), *(_made(function, SAMPLE_ARGUMENTS) for function in _functions())]


def key_patterns() -> dict[str, re.Pattern[str]]:
    """Return for each sample key what all keys of its kind match."""
    made = {}
    for function in _functions():
        parameters = inspect.signature(function).parameters
        wild = {name: f"\0{name}\0" for name in parameters}
        pattern = re.escape(_made(function, wild))
        for name in parameters:
            pattern = pattern.replace(f"\0{name}\0", PATTERNS.get(name, r"\d+"))
        made[_made(function, SAMPLE_ARGUMENTS)] = re.compile(pattern)
    return {key: re.compile(re.escape(key)) for key in _constants()} | made


def documented_keys() -> list[str]:
    """Return the keys that have a section."""
    return re.findall(r"(?m)^## `(clusterer:.+)`$", folder("redis-keys"))


def redis_cli_lines() -> list[list[str]]:
    """Return the commands of the pages' redis-cli lines, as words."""
    lines = re.findall(r"(?m)^\$ redis-cli (.+)$", folder("redis-keys"))
    return [shlex.split(line) for line in lines]


def _constants() -> list[str]:
    found = (pair for module in _MODULES for pair in vars(module).items())
    texts = (value for name, value in found if name.isupper() and isinstance(value, str))
    return [text for text in texts if text.startswith("clusterer:")]


def _functions() -> list[Callable[..., str]]:
    names = {module.__name__ for module in _MODULES}
    found = (pair for module in _MODULES for pair in inspect.getmembers(module, inspect.isfunction))
    return [f for name, f in found if f.__module__ in names and not name.startswith("_")]


def _made(function: Callable[..., str], arguments: Mapping[str, object]) -> str:
    names = inspect.signature(function).parameters
    missing = [name for name in names if name not in arguments]
    assert not missing, f"keys.{function.__name__}: SAMPLE_ARGUMENTS lacks {missing}"
    return function(**{name: arguments[name] for name in names})
