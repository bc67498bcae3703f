"""Processes as PID 1, as in a container without an init: the kernel keeps signals from them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterer.settings import Settings, as_environment
from tests.support.pids import wait_until_gone
from tests.support.ports import free_port
from tests.support.processes import end_group, start, wait_until

PROGRAMS = {
    "node": ("clusterer", "node"),
    "up": ("clusterer", "up"),
    "mi": ("clusterer", "mi", "--fifo", "fifo", "--reply-dir", "."),
    "worker": ("clusterer", "worker", "delivery"),
    "maintenance": ("clusterer", "worker", "maintenance"),
    "scheduler": ("clusterer", "scheduler"),
    "list": ("clusterer", "list"),
}
_SIGTERM = 1 << (signal.SIGTERM - 1)


@contextmanager
def as_pid_1(words: Sequence[str], directory: Path) -> Iterator[int]:
    """Run ``python -m words`` as PID 1 of a namespace; yield its pid out here."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare here")
    settings = Settings(
        redis_url=f"redis://127.0.0.1:{free_port()}", data_dir=str(directory), server_id=1
    )
    # Coverage sets a handler of SIGTERM of its own, and ends by the signal: PID 1 ignores that.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CLUSTERER_", "COVERAGE_"))
    }
    command = [unshare, "-rpf", "--kill-child", sys.executable, "-m", *words]
    output = directory / "output"
    process = start(command, output, environment | as_environment(settings))
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        found = wait_until(lambda: children.read_text().split() or process.poll() is not None)
        if not isinstance(found, list):
            pytest.skip(f"no process namespaces here: {output.read_text()}")
        pid = int(found[0])
        # Before that it is still unshare, which blocks SIGTERM for its own reasons.
        wait_until(
            lambda: sys.executable in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
        )
        yield pid
    finally:
        end_group(process)


def heeds_sigterm(pid: int) -> bool:
    """Whether a process handles SIGTERM, or blocks the signal until a handler is set."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [line.split()[1] for line in status.splitlines() if line[:6] in {"SigBlk", "SigCgt"}]
    return any(int(mask, 16) & _SIGTERM for mask in masks)


def loads_libraries(pid: int) -> bool:
    """Whether a process has begun to load its libraries."""
    return "hiredis" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_pid1_heeds_sigterm_while_it_loads(program: str, tmp_path: Path) -> None:
    with as_pid_1(PROGRAMS[program], tmp_path) as pid:
        wait_until(lambda: loads_libraries(pid) or heeds_sigterm(pid))
        assert heeds_sigterm(pid), "SIGTERM is lost while libraries are loaded"
        os.kill(pid, signal.SIGTERM)
        wait_until_gone([pid])


def test_pid1_heeds_sigterm_whenever_it_comes(tmp_path: Path) -> None:
    """From the program's first instruction on, also between handlers."""
    for wait_s in (0.1, 0.3, 0.6, 1.0):
        with as_pid_1(PROGRAMS["worker"], tmp_path) as pid:
            wait_until(lambda: heeds_sigterm(pid))
            time.sleep(wait_s)
            os.kill(pid, signal.SIGTERM)
            wait_until_gone([pid])
