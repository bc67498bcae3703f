"""Programs in a network namespace of their own, which ends with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.processes import child_environment, die_with_parent


def run_alone(words: Sequence[str], *prepare: str, timeout_s: float = 60.0) -> str:
    """Run Python with ``words`` where only the loopback interface is; return what it prints.

    ``prepare`` are shell commands that the namespace's own root runs before. Skips the test where
    no namespaces can be made; fails it if Python fails.
    """
    unshare = shutil.which("unshare") or "unshare"
    script = " && ".join(("ip link set lo up", *prepare, 'exec "$@"'))
    command = [unshare, "-rn", "sh", "-c", script, "sh", sys.executable, *words]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=child_environment(),
            preexec_fn=die_with_parent(),
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout
