"""How large a test is: a sample in every run, the full size on request (TEST_SCALE=full)."""

from __future__ import annotations

import os


def scaled(sample: int, full: int) -> int:
    """Return ``full`` if the environment asks for it, else ``sample``."""
    return full if os.environ.get("TEST_SCALE") == "full" else sample
