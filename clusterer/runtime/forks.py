"""Locks and objects that stay usable in a forked child, where only the forking thread lives on.

A lock that another thread holds at the moment of the fork stays locked in the child for ever.
Two ways out, and the owner of a lock chooses:

- `lock` and `rlock` are for short work in memory. A fork waits until they are free, so that the
  child finds the data behind them whole. If one is not free within `WAIT_S`, the child gets it
  renewed.
- `renew_in_child` is for what a fork cannot wait for (a lock held while Redis answers), and for
  threads and connections, which a child does not have: the object builds its parts again.

Only weak references are kept. Nothing here costs anything between forks.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterable
from time import monotonic
from typing import Any, Protocol

WAIT_S = 1.0
"""Seconds for which a fork tries to take all locks; locks that are not free then are renewed."""

_STEP_S = 0.1
"""Seconds that a fork waits for one lock while it holds others: a thread may want both."""


class Renewable(Protocol):
    """What has to do something in a forked child before it can be used there."""

    def renew_in_child(self) -> None:
        """Replace locks, threads and connections. Runs in the child's only thread; must not block
        or raise.
        """
        ...


def lock() -> Any:
    """Return a new lock for short work in memory."""
    return hold(threading.Lock())


def rlock() -> Any:
    """Return a new lock for short work in memory that its owner may take again."""
    return hold(threading.RLock())


def hold(kept: Any) -> Any:
    """Have forks wait for a lock that something else made, as for one of `lock`; return it."""
    _locks.add(weakref.ref(kept, _locks.discard))
    return kept


def renew_in_child(owner: Renewable) -> None:
    """Have ``owner.renew_in_child()`` called in every child forked from now on."""
    _owners.add(weakref.ref(owner, _owners.discard))


def abandon(descriptors: Iterable[int]) -> None:
    """Let go, in a child, of files and sockets that stay the parent's: peers must see it close.

    The numbers lead nowhere then, and stay taken until their owners here close them; those below
    0 are passed over.
    """
    with contextlib.suppress(OSError), open(os.devnull, "rb") as nowhere:  # noqa: PTH123
        for descriptor in descriptors:
            if descriptor >= 0:
                os.dup2(nowhere.fileno(), descriptor, inheritable=False)


_locks: set[weakref.ref[Any]] = set()
_owners: set[weakref.ref[Renewable]] = set()
_fork = threading.local()
"""Of each forking thread, in ``taken``, the locks that it holds over its fork."""


def _living(references: set[weakref.ref[Any]]) -> list[Any]:
    return [found for reference in list(references) if (found := reference()) is not None]


def _take_all() -> None:
    """Take every lock, in an order that the threads which want two of them allow."""
    deadline = monotonic() + WAIT_S
    wanted = _living(_locks)
    _fork.taken = []
    while (busy := _take(wanted)) is not None:
        _release_all()
        wanted.remove(busy)
        if monotonic() < deadline:
            wanted.insert(0, busy)


def _take(wanted: list[Any]) -> Any:
    """Take ``wanted`` one after the other; return the first that is not to be had, or None."""
    for each in wanted:
        if not each.acquire(timeout=_STEP_S):
            return each
        _fork.taken.append(each)
    return None


def _release_all() -> None:
    while _fork.taken:
        _fork.taken.pop().release()


def _begin_child() -> None:
    taken = {id(each) for each in _fork.taken}
    for each in _living(_locks):
        if id(each) not in taken:
            each._at_fork_reinit()  # noqa: SLF001 - as the standard library does with its own
    _release_all()
    for owner in _living(_owners):
        owner.renew_in_child()


# At import, as `logging` does: a process has one list of hooks, and no way to leave it again.
os.register_at_fork(before=_take_all, after_in_parent=_release_all, after_in_child=_begin_child)
