"""Replies of a real OpenSIPS 2.2.8 over its FIFO."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "vectors" / "mi-2.2.8.txt"


def vectors() -> Iterator[tuple[str, bytes, bytes]]:
    """Yield name, request and reply of each exchange, the notes on final lines applied."""
    text = VECTORS.read_text(encoding="utf-8").partition("# Notes")[0]
    for part in text.split(">>> ")[1:]:
        asked, _, answered = part.partition("<<<\n")
        head, _, rest = asked.partition("\n")
        name = head.strip()
        lines = [re.sub(r"\s+\(.*\)$", "", head), *rest.split("\n")]
        request = "\n".join(line for line in lines if line) + "\n\n"
        reply = answered.rstrip("\n") + "\n" + ("" if "not available" in answered else "\n")
        yield name, request.encode(), reply.encode()


EXCHANGES = list(vectors())
