"""Child processes: how to start them, call them, and read their CPU time and memory."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from tests.support.processes import child_environment, die_with_parent, end_group

ANSWER_WITHIN_S = 120.0

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class BenchmarkFailed(Exception):
    """A measurement could not be carried out; names the process and the reason."""


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used so far, all its threads."""
    return time.clock_gettime(~pid << 3 | 2)  # the id of its clock: see clock_getcpuclockid(3)


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Return the resident memory of a process, or with "VmHWM" its peak."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise BenchmarkFailed(f"process {pid}: no {field}")


class Process:
    """``python -m WORDS...`` that dies with this process; its errors go to a file."""

    _begin: tuple[str, ...] = (sys.executable, "-m")
    """Words of the command line before WORDS."""

    def __init__(self, directory: Path, env: Mapping[str, str], *words: str) -> None:
        self.name = " ".join(words)[:60]
        self._log = directory / f"{id(self)}.log"
        with self._log.open("ab") as errors:
            self.popen = subprocess.Popen(
                [*self._begin, *words],
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

    def failed(self, why: str) -> BenchmarkFailed:
        """Return the error that says what happened to this process, with the end of its log."""
        errors = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
        return BenchmarkFailed(f"{self.name}: {why}\n{errors}")

    def end(self) -> None:
        """SIGTERM, then SIGKILL."""
        end_group(self.popen, 5.0)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()


class Program(Process):
    """``WORDS...``, a program that is not of Python."""

    _begin = ()


class Child(Process, Generic[R]):
    """A process that makes a role and answers calls of its methods; see `roles`."""

    def __init__(
        self,
        directory: Path,
        env: Mapping[str, str],
        role: Callable[P, R],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> None:
        where = f"{role.__module__}:{role.__qualname__}"
        given = json.dumps([arguments, options])
        super().__init__(directory, env, "scripts.benchmarks.roles", where, given)

    def begin(
        self, method: Callable[Concatenate[R, P], object], *arguments: P.args, **options: P.kwargs
    ) -> None:
        """Call a method without waiting for its result."""
        assert self.popen.stdin is not None  # noqa: S101 - made with a pipe
        call = json.dumps([method.__name__, arguments, options])
        try:
            self.popen.stdin.write(call.encode() + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError as error:
            raise self.failed("ended") from error

    def answer(self) -> Any:
        """Wait for the result of the oldest call that has not been answered."""
        assert self.popen.stdout is not None  # noqa: S101 - made with a pipe
        ready, _, _ = select.select([self.popen.stdout], [], [], ANSWER_WITHIN_S)
        line = self.popen.stdout.readline() if ready else b""
        if not line:
            raise self.failed("ended" if ready else f"no answer in {ANSWER_WITHIN_S:g} s")
        return json.loads(line)

    def call(
        self, method: Callable[Concatenate[R, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Call a method and return its result, as JSON has it."""
        self.begin(method, *arguments, **options)
        result: T = self.answer()
        return result
