"""Child processes that cannot outlive the test run, and bounded waiting."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

POLL_INTERVAL_S = 0.01

EVENTUALLY_S = 60.0
"""How long a test waits for what has to happen at some time. The tests run beside each other, maybe
on a slow machine. Only a bound that the product promises is shorter."""

LATE_S = 5.0
"""So much later than the product promises it something may happen on a machine whose cores other
tests use as well."""

STOP_TIMEOUT_S = EVENTUALLY_S

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def wait_until(
    predicate: Callable[[], T | None], timeout_s: float = EVENTUALLY_S, message: str = ""
) -> T:
    """Poll ``predicate`` until it returns something true, and return that.

    Raises `TimeoutError` with ``message`` once ``timeout_s`` have passed; the predicate is asked
    at least once. It is asked for half of the time at most: other threads need the processor.
    """
    asked_at = time.monotonic()
    deadline = asked_at + timeout_s
    while not (value := predicate()):
        now = time.monotonic()
        if now >= deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {message or predicate}")
        time.sleep(max(POLL_INTERVAL_S, min(now - asked_at, 1.0)))
        asked_at = time.monotonic()
    return value


def rounds(seconds: float, pause_s: float = POLL_INTERVAL_S) -> Iterator[None]:
    """Yield again and again for ``seconds``, with a pause after each round."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(pause_s)


def die_with_parent() -> Callable[[], None]:
    """Return a ``preexec_fn`` that has the kernel SIGKILL the child when this thread ends.

    The kernel watches the *thread* that started the child: start long-lived ones from the main
    thread.
    """
    parent = os.getpid()

    def set_death_signal() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal


def start(
    command: Sequence[str | Path], output: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a process group of its own, both its outputs appended to ``output``."""
    with output.open("ab") as sink:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - only system calls between fork and exec
        )


def end_group(process: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """SIGTERM ``process`` and wait; then SIGKILL whatever is left of its group, and reap it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class ChildProcess:
    """A Python process that a test started; see `spawn`."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self.popen.poll()

    def output(self) -> str:
        """Everything it has written so far, stdout and stderr as they came."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_output(self, text: str, timeout_s: float = EVENTUALLY_S) -> None:
        """Wait until ``text`` is in its output; fails at once if it ends without."""
        wait_until(
            lambda: text in self.output() or self.returncode is not None,
            timeout_s,
            f"{text!r} in the output of {self.popen.args!r}",
        )
        assert text in self.output(), f"process ended ({self.returncode}) without {text!r}"

    def wait(self, timeout_s: float = EVENTUALLY_S) -> int:
        """Wait until it has ended and return its exit code."""
        return self.popen.wait(timeout_s)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, wait, return the exit code."""
        self.popen.terminate()
        return self.popen.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL the process itself, not its children, and reap it."""
        self.popen.kill()
        self.popen.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.popen.send_signal(signal.SIGCONT)


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without its CLUSTERER_* settings, and with ``env``."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CLUSTERER_")}
    return inherited | {"PYTHONUNBUFFERED": "1"} | dict(env or {})


def unmeasured(env: Mapping[str, str]) -> dict[str, str]:
    """Return ``env`` for a process whose coverage is not recorded."""
    return {name: value for name, value in env.items() if not name.startswith("COV")}


@contextlib.contextmanager
def spawn(
    args: Sequence[str | Path], env: Mapping[str, str] | None = None, *, measured: bool = True
) -> Iterator[ChildProcess]:
    """Run ``python ARGS...`` for the length of a ``with`` block.

    ``args`` are Python's own, such as ``["-m", "clusterer", "node"]`` or ``["-c", "..."]``.
    ``env`` is added to this process's environment, whose CLUSTERER_* variables do not count. At
    the end the process gets SIGTERM, its whole group SIGKILL; if the block failed, the process's
    output is shown. ``measured``: its coverage is recorded.
    """
    environment = child_environment(env)
    with tempfile.TemporaryDirectory(prefix="clusterer-process-") as directory:
        log = Path(directory, "output")
        popen = start(
            [sys.executable, *args], log, environment if measured else unmeasured(environment)
        )
        child = ChildProcess(popen, log)
        try:
            yield child
        except BaseException:
            end_group(popen)
            words = " ".join(map(str, args))
            print(f"--- output of python {words} (exit code {popen.returncode})", file=sys.stderr)
            print(child.output(), file=sys.stderr)
            raise
        finally:
            end_group(popen)
