"""The second Python of `scripts/test`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.processes import EVENTUALLY_S

PROJECT = Path(__file__).parents[2]


def put_python(path: Path, version: str) -> Path:
    """Make a program that answers as Python ``version``; one that does not run for ""."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0); exec(sys.argv[1])"
    body = f'exec "{sys.executable}" -c "{told}" "$2"' if version else "exit 127"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def other_python(home: Path, main: str = "3.11", **variables: str) -> str:
    """Return what the function prints, run with ``home`` and only the tools that it needs."""
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    for tool in ("dirname", "sed", "sort", "ls"):
        found = next(
            Path(place, tool) for place in ("/usr/bin", "/bin") if Path(place, tool).exists()
        )
        (tools / tool).symlink_to(found)
    done = subprocess.run(
        ["/bin/bash", "-c", f'. scripts/lib/environment.sh; other_python "{main}"'],
        cwd=PROJECT,
        env={"HOME": str(home), "PATH": str(tools), **variables},
        capture_output=True,
        text=True,
        timeout=EVENTUALLY_S,
        check=False,
    )
    assert not done.stderr
    return done.stdout.strip()


def test_other_python_none_found_gives_nothing(tmp_path: Path) -> None:
    put_python(tmp_path / "bin/python3.13", "")  # a shim that does not run
    put_python(tmp_path / ".pyenv/versions/3.11.7/bin/python", "3.11")  # the main version
    put_python(tmp_path / ".pyenv/versions/3.9.18/bin/python", "3.9")  # too old
    assert other_python(tmp_path) == ""


def test_other_python_newest_of_pyenv_is_taken(tmp_path: Path) -> None:
    put_python(tmp_path / "bin/python3.13", "")
    put_python(tmp_path / ".pyenv/versions/3.12.1/bin/python", "3.12")
    put_python(tmp_path / ".pyenv/versions/3.13.2/bin/python", "3.13")
    newest = put_python(tmp_path / ".pyenv/versions/3.13.10/bin/python", "3.13")
    assert other_python(tmp_path) == str(newest)


def test_other_python_in_pyenv_root_is_found(tmp_path: Path) -> None:
    root = tmp_path / "root"
    found = put_python(root / "versions/3.12.1/bin/python", "3.12")
    assert other_python(tmp_path, PYENV_ROOT=str(root)) == str(found)


def test_other_python_on_path_is_found(tmp_path: Path) -> None:
    on_path = put_python(tmp_path / "bin/python3.12", "3.12")
    put_python(tmp_path / ".pyenv/versions/3.12.1/bin/python", "3.12")
    assert other_python(tmp_path) == str(on_path)


def test_other_python_beside_the_newest_is_older(tmp_path: Path) -> None:
    put_python(tmp_path / "bin/python3.13", "3.13")
    older = put_python(tmp_path / "bin/python3.12", "3.12")
    assert other_python(tmp_path, main="3.13") == str(older)
