"""A user with neither HOME nor an entry in /etc/passwd, as containers of OpenShift have it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

UNSHARE = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
REMEDY = "set data_dir (--data-dir DIR or CLUSTERER_DATA_DIR)"


def homeless(words: Sequence[str], directory: Path) -> tuple[int, str]:
    """Run a command as that user; return its exit code and its whole output."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], check=False).returncode
    ):
        pytest.skip("no user namespaces here")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_DATA_HOME"}
        and not name.startswith("CLUSTERER_")
    }
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-P", "-m", "clusterer", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=directory,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["up"],
        ["init-db"],
        ["list", "--data-dir", "~/x"],
        ["list", "--data-dir", "~none/x"],
    ],
)
def test_command_without_home_says_what_to_set(words: list[str], tmp_path: Path) -> None:
    code, said = homeless(words, tmp_path)
    assert code == 1
    assert REMEDY in said
    assert len(said.splitlines()) == 1


def test_doctor_without_home_goes_on(redis_url: str, tmp_path: Path) -> None:
    code, said = homeless(["doctor", "--redis-url", redis_url], tmp_path)
    assert code == 1
    assert REMEDY in said
    assert "ok      backlog" in said
    code, said = homeless(["doctor"], tmp_path)
    assert "skipped backlog" in said
    assert said.splitlines()[-1].endswith("skipped.")


def test_command_that_needs_no_directory_runs_without_home(redis_url: str, tmp_path: Path) -> None:
    urls = ["--redis-url", redis_url, "--db-url", f"sqlite:///{tmp_path}/x.db"]
    assert homeless(["list", *urls], tmp_path)[0] == 0
    assert (
        homeless(["doctor", "--data-dir", str(tmp_path), *urls[:2]], tmp_path)[1].count("ok ") > 5
    )
