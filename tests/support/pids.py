"""Looking at processes whose parent has ended."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.support.processes import EVENTUALLY_S, wait_until


def alive(pid: int) -> bool:
    """Whether the process still runs; a zombie that its parent has not reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # also ProcessLookupError, if the process ends between open and read
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def descendants(pid: int) -> list[int]:
    """The pids of all children, grandchildren and so on of ``pid``, through all its threads."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended meanwhile
            for child in map(int, children.read_text(encoding="ascii").split()):
                found += [child, *descendants(child)]
    return found


def wait_until_gone(pids: Iterable[int], timeout_s: float = EVENTUALLY_S) -> None:
    """Wait until none of ``pids`` runs."""
    wanted = list(pids)
    wait_until(
        lambda: not any(alive(pid) for pid in wanted), timeout_s, f"processes {wanted} are gone"
    )
