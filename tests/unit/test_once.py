"""Parts that are made on first use are made once, whatever threads ask for them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from clusterer import Settings
from clusterer.core import Core
from clusterer.modules.dialog import Dialogs
from clusterer.modules.ratelimit import RateLimit
from clusterer.provisioning.database import Database
from clusterer.runtime.once import once
from clusterer.services import Context
from tests.support.fake_cluster import FakeCluster
from tests.support.processes import EVENTUALLY_S

T = TypeVar("T")
THREADS = 12


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Have threads interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(call: Callable[[], T]) -> list[T]:
    """Return what ``call`` gives to threads that all begin at the same moment."""
    barrier = threading.Barrier(THREADS)

    def work(_: int) -> T:
        barrier.wait(EVENTUALLY_S)
        return call()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


class Whole:
    def __init__(self) -> None:
        self.made: list[str] = []
        self.faults = 0

    @once
    def part(self) -> object:
        """A part."""
        self.made.append("part")
        time.sleep(0.05)
        return object()

    @once
    def outer(self) -> tuple[object]:
        return (self.part,)

    @once
    def fragile(self) -> str:
        self.faults += 1
        if self.faults == 1:
            raise OSError("not yet")
        return "made"


def test_part_asked_for_by_threads_is_made_once() -> None:
    whole = Whole()
    assert len(set(map(id, at_once(lambda: whole.part)))) == 1
    assert whole.made == ["part"]
    assert Whole().part is not whole.part


def test_part_that_needs_another_is_made_once() -> None:
    whole = Whole()
    found = at_once(lambda: whole.outer)
    assert all(each is found[0] for each in found)
    assert whole.made == ["part"]


def test_part_that_failed_is_made_by_the_next_look_up() -> None:
    whole = Whole()
    with pytest.raises(OSError, match="not yet"):
        _ = whole.fragile
    assert (whole.fragile, whole.fragile, whole.faults) == ("made", "made", 2)


def test_once_on_the_class_keeps_its_docstring() -> None:
    assert Whole.part.__doc__ == "A part."


@pytest.mark.parametrize("kind", [Core, Context, Database])
def test_parts_of_shared_objects_are_made_once(
    kind: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name, value in vars(kind).items() if isinstance(value, once)]
    assert names
    settings = Settings(server_id=1, redis_url="redis://127.0.0.1:1", db_url="sqlite://")
    for name in names:
        made = kind(settings=settings)
        assert len(set(map(id, at_once(lambda: getattr(made, name))))) == 1, name  # noqa: B023


def threads_named(*names: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in names]


def test_rate_limit_started_by_threads_sends_once_a_tick() -> None:
    cluster = FakeCluster()
    limits = RateLimit(cluster, replicate_pipes_to=1, accept_pipes_from=1)
    at_once(limits.start)
    try:
        assert len(threads_named("ratelimit")) == 1
        assert len(cluster.registered) == 1
    finally:
        limits.stop()
    assert threads_named("ratelimit") == []


def test_observer_started_by_threads_registers_once() -> None:
    cluster = FakeCluster()
    dialogs = Dialogs(cluster, 1)
    at_once(dialogs.start)
    try:
        assert len(threads_named("dialogs")) == 1
        assert len(cluster.registered) == 2
    finally:
        dialogs.stop()
