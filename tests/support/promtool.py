"""Prometheus's own checker, where it is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.programs import find_program

PROMTOOL = find_program("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="promtool is not installed (Debian: prometheus)",
)


def promtool(*arguments: str, text: str = "", cwd: Path | None = None) -> str:
    """Run promtool, which must find nothing wrong; return what it said."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments],
        input=text,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
