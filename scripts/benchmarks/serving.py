"""The child's side of `children`: answers calls, one line of JSON each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


def argument() -> dict[str, Any]:
    """Return what the parent gave this process."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def answer(value: object) -> None:
    """Send one value to the parent; the first one says that this process is ready."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def serve(calls: Mapping[str, Callable[..., object]]) -> None:
    """Answer the parent's calls until it closes the pipe."""
    for line in sys.stdin:
        name, options = json.loads(line)
        answer(calls[name](**options))
