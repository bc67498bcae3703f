"""Child processes: their CPU time and memory, and calls to those that answer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import child_environment, die_with_parent, end_group

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ANSWER_WITHIN_S = 120.0


class BenchmarkFailed(Exception):
    """A benchmark could not be carried out; says which process and why."""


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used so far, all its threads."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Return a process's resident memory, or with "VmHWM" its peak."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise BenchmarkFailed(f"process {pid} has no {field}")


class Process:
    """``python -m MODULE ARGS...`` that dies with this process; its errors go to a file."""

    def __init__(
        self, directory: Path, module: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = " ".join([module, *arguments])[:60]
        self.log = directory / f"{module}-{id(self)}.log"
        with self.log.open("ab") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=child_environment(env),
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - only system calls before exec
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    @property
    def memory_mb(self) -> float:
        return memory_mb(self.pid)

    def failed(self, why: str) -> BenchmarkFailed:
        """Return the error that says what happened to this process, with the end of its log."""
        errors = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        return BenchmarkFailed(f"{self.name}: {why}\n{errors}")

    def end(self) -> None:
        """SIGTERM, then SIGKILL."""
        end_group(self.popen, 5.0)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()


class Child(Process):
    """A process of one of our modules that answers calls, see `serving`."""

    def __init__(
        self, directory: Path, role: str, given: object, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(directory, f"scripts.benchmarks.{role}", json.dumps(given), env=env)

    def answer(self) -> Any:
        """Wait for the next answer; the first one comes when the process is ready."""
        assert self.popen.stdout is not None  # noqa: S101 - made with a pipe
        ready, _, _ = select.select([self.popen.stdout], [], [], ANSWER_WITHIN_S)
        line = self.popen.stdout.readline() if ready else b""
        if not line:
            raise self.failed("ended" if ready else f"no answer in {ANSWER_WITHIN_S:g} s")
        return json.loads(line)

    def begin(self, name: str, **options: object) -> None:
        """Make a call without waiting for its answer."""
        assert self.popen.stdin is not None  # noqa: S101 - made with a pipe
        self.popen.stdin.write(json.dumps([name, options]).encode() + b"\n")
        self.popen.stdin.flush()

    def call(self, name: str, **options: object) -> Any:
        """Make a call and return its answer."""
        self.begin(name, **options)
        return self.answer()
