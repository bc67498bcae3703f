"""docker-compose.yml is one that docker-compose accepts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.programs import find_program

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("profile", [[], ["--profile", "ha"]])
def test_compose_file_is_accepted(profile: list[str]) -> None:
    # Only where it is installed: nothing else here needs Docker's tools.
    program = find_program("docker-compose") or pytest.skip("docker-compose is not installed")
    result = subprocess.run(
        [program, "--file", ROOT / "docker-compose.yml", *profile, "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
