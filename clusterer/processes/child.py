"""One child process: its command, its start, its output, its end.

The kernel sends a child a signal when its parent is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from clusterer.errors import ClustererError
from clusterer.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings, as_environment

_PR_SET_PDEATHSIG = 1


def signal_at_parents_death(number: int) -> Callable[[], None]:
    """Return a ``preexec_fn``: the kernel sends ``number`` to the child when its parent has ended.

    The kernel sends the signal also after SIGKILL of the parent, and to the program that the child
    executes. The kernel watches the *thread* that forked, not the process: call this function in
    the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children must be started by the main thread: they die with it")
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        # Between fork and exec: nothing here but system calls.
        if prctl(_PR_SET_PDEATHSIG, number) != 0 or os.getppid() != parent:
            os._exit(127)  # the parent ended before prctl

    return arrange


_CHUNK = 65_536
_LONGEST_LINE = 65_536
_UMASK = 0o077
"""Children keep sockets and data to their owner."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """The command of a child process, and how the child starts and ends."""

    name: str
    """For log lines; unique in its group."""
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """The whole environment of the child."""
    death_signal: int = signal.SIGTERM
    """The signal that the kernel sends to the child when the parent has ended."""
    log: Path | None = None
    """File for the output of the child; None: the parent reads the output line by line."""
    inherited: tuple[int, ...] = ()
    """File descriptors of the parent that the child keeps."""
    last: bool = False
    """Whether the child ends after all others, which need it until they have ended."""


class Line(NamedTuple):
    """A line of the output of a child."""

    name: str
    """Name of the child."""
    text: str
    """The line without its end."""
    is_error: bool
    """Whether the child wrote the line to stderr, which has the log."""


class Child:
    """A running or ended child, which does not outlive this process. For the main thread."""

    def __init__(self, spec: ChildSpec) -> None:
        """Start the child. Raises `ClustererError` if the program cannot be run."""
        self.spec = spec
        self._process = _start(spec)
        self._unfinished: dict[int, bytes] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for the signal that ended the child; None while the child runs."""
        return self._process.poll()

    @property
    def streams(self) -> list[IO[bytes]]:
        """The outputs of the child that can still be read."""
        both = (self._process.stdout, self._process.stderr)
        return [stream for stream in both if stream is not None and not stream.closed]

    def lines(self, stream: IO[bytes]) -> Iterator[Line]:
        """Read once from ``stream``, which can be read; return the lines that are now complete.

        Closes the stream at its end.
        """
        chunk = os.read(stream.fileno(), _CHUNK)
        *lines, rest = (self._unfinished.pop(stream.fileno(), b"") + chunk).split(b"\n")
        if not chunk or len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, *([rest] if rest else [])], b""
        self._unfinished[stream.fileno()] = rest
        is_error = stream is self._process.stderr
        if not chunk:
            stream.close()
        for line in lines:
            yield Line(self.spec.name, line.decode("utf-8", "replace").rstrip("\r"), is_error)

    def send_signal(self, number: int) -> None:
        """Send a signal to the child, if the child still runs."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the child and its whole process group, and wait for the child's end."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the child has ended; False if it runs longer than ``timeout_s``."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Close the outputs of the child."""
        for stream in self.streams:
            stream.close()


def _start(spec: ChildSpec) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        try:
            sink = (
                subprocess.PIPE
                if spec.log is None
                else stack.enter_context(_private_file(spec.log))
            )
            return subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=spec.environment,
                pass_fds=spec.inherited,
                umask=_UMASK,
                # A session of its own: Ctrl-C ends the parent, and the parent ends its children.
                start_new_session=True,
                preexec_fn=signal_at_parents_death(spec.death_signal),  # noqa: PLW1509 - system calls only
            )
        except OSError as error:
            raise ClustererError(
                f"cannot start {spec.name} ({spec.command[0]}): {error}"
            ) from error


def _private_file(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return open(path, "ab", opener=lambda name, _: os.open(name, flags, 0o600))


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a Python module in a process of its own."""
    # -P: Python must not import a directory 'workers' or 'scheduler' of the working directory.
    return (sys.executable, "-P", "-m", module, *arguments)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a child: that of this process, with exactly these settings."""
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) and name != CONFIG_VARIABLE
    }
    return others | {"PYTHONUNBUFFERED": "1"} | as_environment(settings)
