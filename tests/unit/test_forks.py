"""Locks, threads and sockets in a forked child: nothing there waits for a thread it has not."""

from __future__ import annotations

import gc
import io
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clusterer.modules.dialog import Dialogs
from clusterer.modules.ratelimit import Algorithm, RateLimit
from clusterer.runtime import forks
from clusterer.runtime.logs.handler import SummarisingHandler
from tests.support.fake_cluster import FakeCluster
from tests.support.forked import fork, in_child, result_of
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until


@contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    """Have a thread do ``work`` again and again."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(EVENTUALLY_S)


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Have a thread hold ``lock``."""
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            ready.set()
            done.wait(EVENTUALLY_S)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(EVENTUALLY_S)
    try:
        yield
    finally:
        done.set()
        thread.join(EVENTUALLY_S)


@pytest.mark.parametrize("make", [forks.lock, forks.rlock])
def test_fork_waits_until_work_under_a_lock_is_done(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        forks, "WAIT_S", 30.0
    )  # a busy host may not run the other thread for a second
    lock, pair = make(), [0, 0]

    def change() -> None:
        with lock:
            pair[0] += 1
            time.sleep(0.002)
            pair[1] += 1

    def whole() -> bool:
        with lock:
            return pair[0] == pair[1]

    with busy(change):
        assert [in_child(whole) for _ in range(20)] == [0] * 20
    assert pair[0] == pair[1]


@pytest.mark.parametrize("make", [forks.lock, forks.rlock])
def test_lock_held_for_long_is_free_in_the_child(make: Callable[[], Any]) -> None:
    lock = make()
    with held(lock):
        began = time.monotonic()
        pid = fork(lambda: lock.acquire(timeout=EVENTUALLY_S))
        assert time.monotonic() - began < forks.WAIT_S + LATE_S
        assert result_of(pid) == 0
        assert not lock.acquire(blocking=False), "the parent's lock is taken still"
    assert lock.acquire(timeout=EVENTUALLY_S)


def test_fork_beside_a_thread_that_takes_two_locks_ends() -> None:
    inner, outer = forks.lock(), forks.lock()

    def both() -> None:
        with outer, inner:
            time.sleep(0.001)

    def free() -> bool:
        return bool(inner.acquire(timeout=EVENTUALLY_S)) and bool(
            outer.acquire(timeout=EVENTUALLY_S)
        )

    with busy(both):
        assert [in_child(free) for _ in range(20)] == [0] * 20


def test_fork_under_a_lock_of_its_own_thread_keeps_it() -> None:
    lock = forks.rlock()

    def leave() -> bool:
        lock.release()
        taken: list[bool] = []
        other = threading.Thread(target=lambda: taken.append(lock.acquire(timeout=EVENTUALLY_S)))
        other.start()
        other.join(EVENTUALLY_S)
        return taken == [True]

    with lock:
        assert in_child(leave) == 0


def test_forks_of_two_threads_at_once_free_all_locks() -> None:
    locks = [forks.lock() for _ in range(20)]
    codes: list[int | None] = []

    def child() -> bool:
        return all(lock.acquire(timeout=EVENTUALLY_S) for lock in locks)

    threads = [
        threading.Thread(target=lambda: codes.extend(in_child(child) for _ in range(10)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == [0] * 30
    assert all(lock.acquire(blocking=False) for lock in locks)


class Owner:
    def __init__(self) -> None:
        self.renewed = 0
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        self.renewed += 1


def test_owner_is_renewed_in_the_child_and_not_in_the_parent() -> None:
    owner = Owner()
    assert in_child(lambda: owner.renewed == 1) == 0
    assert owner.renewed == 0


def test_owners_and_locks_that_are_gone_are_forgotten() -> None:
    owner, lock = Owner(), forks.lock()
    references = weakref.ref(owner), weakref.ref(lock)
    assert references[0] in forks._owners
    assert references[1] in forks._locks
    del owner, lock
    gc.collect()
    kept = [reference() for reference in (*forks._owners, *forks._locks)]
    assert None not in kept
    assert [reference() for reference in references] == [None, None]


def test_abandoned_pipe_of_the_child_ends_with_the_parents() -> None:
    reader, writer = os.pipe()

    def child() -> bool:
        forks.abandon([writer, -1])
        time.sleep(30)
        return True

    pid = fork(child)
    try:
        time.sleep(0.2)
        os.close(writer)
        os.set_blocking(reader, False)
        wait_until(lambda: os.read(reader, 1) == b"", message="the end of the pipe")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reader)


# -- what promises to survive ----------------------------------------------------------------------


def test_lines_left_out_by_the_parent_are_not_told_by_the_child() -> None:
    stream = io.StringIO()
    handler = SummarisingHandler(stream, burst=1, window_s=60)
    record = logging.LogRecord("x", logging.WARNING, "", 1, "flood", None, None)
    for _ in range(5):
        handler.handle(record)

    def child() -> bool:
        handler.handle(record)
        handler.handle(record)
        handler.close()
        return stream.getvalue() == "flood\nflood\nflood (the last of 1 more like it)\n"

    assert in_child(child) == 0
    handler.close()
    assert stream.getvalue() == "flood\nflood (the last of 4 more like it)\n"


def test_fork_ratelimit_in_child_counts_and_is_stopped() -> None:
    cluster, load = FakeCluster(), [1.0]
    limits = RateLimit(cluster, replicate_pipes_to=1, timer_interval=0.2, cpu_load=lambda: load[0])

    def child() -> bool:
        assert limits.check("load", 50, Algorithm.FEEDBACK), "nothing measured, nothing refused"
        assert not limits.check("calls", 0)
        before = len(cluster.sent)
        time.sleep(0.5)
        assert len(cluster.sent) == before
        limits.start()
        wait_until(lambda: len(cluster.sent) > before, message="a packet")
        wait_until(lambda: not all(limits.check("load", 50, 3) for _ in range(100)), message="load")
        limits.stop()
        return True

    with limits:
        wait_until(lambda: not all(limits.check("load", 50, 3) for _ in range(100)), message="load")
        assert in_child(child) == 0
        sent = len(cluster.sent)
        wait_until(lambda: len(cluster.sent) > sent, message="the parent goes on")


def test_observer_in_a_child_stops_and_starts() -> None:
    dialogs = Dialogs(FakeCluster(), 1)

    def child() -> bool:
        dialogs.stop()
        dialogs.start()
        running = any(each.name == "dialogs" for each in threading.enumerate())
        dialogs.stop()
        return running

    with dialogs, held(dialogs._telling):
        assert in_child(child) == 0
