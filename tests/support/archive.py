"""The code of an earlier commit, for tests that run it beside the code of this version."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.programs import require_program

BEFORE_PATHS = "d9b45cd"
"""The last commit in which all senders share one state per node."""


def extracted(commit: str, directory: Path) -> Path:
    """Put the packages of ``commit`` into ``directory``, and return it; skip without history."""
    archive = directory / "before.tar"
    words = ["archive", "-o", str(archive), commit, "clusterer", "workers", "scheduler"]
    done = subprocess.run(
        [require_program("git"), *words], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"the history of the code is not here: {done.stderr.strip()}")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    return directory
