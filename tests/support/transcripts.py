"""Output of commands in the docs, compared with a run without times, ids and widths."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from tests.support import docs

_ASIDE = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d{3})?Z?", "<time>"),
    (r"\b\d\d:\d\d:\d\d(\.\d{3})?", "<time>"),
    (r"\b\d{10}\.\d+|\b\d{13}(-\d+)?\b", "<time>"),
    (r"\b\d+ (s|min|h) ago\b", "<n> s ago"),
    (r"\b\d+(\.\d+)? (s|ms|min|MB)\b", r"<n> \2"),
    (r"\bpid \d+", "pid <id>"),
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"\b(Redis|Valkey) \d+(\.\d+)+", "Redis <version>"),
    (r"\bbacklog \d+", "backlog <n>"),
    (r"─+", "─"),
    (r"[ \t]+", " "),
    (r" $", ""),
)
"""Patterns of what differs from run to run, and what stands for them."""

_COUNTS = re.compile(r"(?m)^ ?\d+ (?:(?:\d+|-|<n> s(?: ago)?)(?: |$)){5,}$")
"""A row of a table that has nothing but counters."""


def sessions(section: str) -> Iterator[tuple[list[str], str]]:
    """Yield each command of the section's console blocks, and what stands below it."""
    for block in docs.blocks(section, "console"):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            line, _, shown = part.partition("\n")
            yield shlex.split(line), shown


def shown(section: str, command: str) -> str:
    """Return what stands below ``command``, a line of the section without its ``$``."""
    (found,) = (text for words, text in sessions(section) if words == shlex.split(command))
    return found


def plain(text: str, names: Mapping[str, str] | None = None) -> str:
    """Return ``text`` without what no two runs have in common.

    ``names`` are a run's own ports, hosts, users and URLs, and what the docs have in their place.
    """
    for name, in_docs in (names or {}).items():
        text = text.replace(name, in_docs)
    for pattern, instead in _ASIDE:
        text = re.sub(rf"(?m){pattern}", instead, text)
    return _COUNTS.sub(lambda row: re.sub(r"\d+", "<n>", row[0]), text).strip()


def is_excerpt(shown: str, whole: str) -> bool:
    """Whether ``shown`` is ``whole``, parts of which a line with … stands for."""
    pieces = [re.escape(piece.strip("\n")) for piece in re.split(r"(?m)^…$", shown)]
    return re.search(r"\A" + r"[^\0]*".join(pieces) + r"\s*\Z", whole) is not None
