"""The checks of a prober over real sockets: what is evidence, and what is not."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator, Sized
from contextlib import suppress
from time import monotonic

import pytest

from clusterer.delivery.link import Link, LocalFault
from clusterer.membership import Node
from clusterer.prober import checks
from clusterer.prober.checks import Checks, Found
from clusterer.runtime.descriptors import OTHER_FILES, delivery_room, prober_room, room
from tests.support.cluster import node, node_for
from tests.support.ports import free_port
from tests.support.probing import black_hole
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.receiver import BinReceiver


class StillClock:
    """The clock of the checks: stands still until a test sets it, however busy the host is."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    found = StillClock()
    monkeypatch.setattr(checks, "monotonic", found)
    return found


@pytest.fixture
def made() -> Iterator[Checks]:
    """Checks that are closed at the end."""
    found = Checks()
    yield found
    found.close()


@pytest.fixture
def silent() -> Iterator[Node]:
    """A node that answers no connect."""
    with black_hole() as (host, port):
        yield node(2, port, host)


def turn_until(made: Checks, found: Sized, count: int) -> None:
    def done() -> bool:
        made.turn(0.01)
        return len(found) == count

    wait_until(done)


def conclude(made: Checks, found: list[Found], count: int = 1) -> None:
    turn_until(made, found, count)
    assert not len(made)


def test_checks_reached_refused_and_silent_node(
    made: Checks, silent: Node, clock: StillClock
) -> None:
    found: dict[int, Found] = {}
    with BinReceiver() as receiver:
        made.start(node_for(1, receiver), "127.0.0.1", 3.0, lambda each: found.setdefault(1, each))
        made.start(silent, "127.0.0.1", 3.0, lambda each: found.setdefault(2, each))
        made.start(node(3, free_port()), "127.0.0.1", 3.0, lambda each: found.setdefault(3, each))
        turn_until(made, found, 2)
        assert found.keys() == {1, 3}, "refused and reached are known at once"
        clock.now += 3.0
        turn_until(made, found, 3)
    assert {which: each.reached for which, each in found.items()} == {1: True, 2: False, 3: False}
    assert "refused" in found[3].reason
    assert "3 s" in found[2].reason


def test_checks_connects_again_until_window_ends(
    made: Checks, silent: Node, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects: list[float] = []
    began = clock.now

    def link(*arguments: object) -> Link:
        connects.append(clock.now - began)
        return Link(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checks, "Link", link)
    found: list[Found] = []
    made.start(silent, None, 0.95, found.append)
    while not found and clock.now < began + 2.0:
        made.turn(0.0)
        clock.now += 0.05
    assert connects == pytest.approx([0.0, 0.2, 0.4, 0.6], abs=0.06)
    assert clock.now - began == pytest.approx(1.0, abs=0.06), "after the window"
    assert not len(made)


def test_checks_lost_connect_is_made_up_by_the_next(
    made: Checks, silent: Node, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a lossy link: the first SYN is lost."""
    with BinReceiver() as receiver:
        ways = iter([silent.address])

        def link(address: tuple[str, int], *arguments: object) -> Link:
            return Link(next(ways, address), *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(checks, "Link", link)
        found: list[Found] = []
        made.start(node_for(1, receiver), None, 0.95, found.append)
        made.turn(0.0)
        clock.now += checks.AGAIN_S
        conclude(made, found)
    assert found[0].reached is True


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS])
def test_checks_local_trouble_is_no_evidence(
    made: Checks, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def link(*arguments: object) -> Link:
        raise LocalFault(os.strerror(code))

    monkeypatch.setattr(checks, "Link", link)
    found: list[Found] = []
    made.start(node(1), None, 0.1, found.append)
    conclude(made, found)
    assert found[0].reached is None


def test_checks_unwatchable_socket_is_local_trouble(
    made: Checks, silent: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def register(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    found: list[Found] = []
    with monkeypatch.context() as full:
        full.setattr(made._selector, "register", register)
        made.start(silent, None, 0.1, found.append)
        with suppress(OSError):
            made.turn(0.0)
    made.drop()  # what the thread of a prober does after any error
    assert [each.reached for each in found] == [None]


def test_checks_of_stopped_process_are_no_evidence(
    made: Checks, silent: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LATE_S", 0.0)
    found: list[Found] = []
    with BinReceiver() as receiver:
        made.start(silent, None, 0.05, found.append)
        made.start(node_for(1, receiver), None, 0.05, found.append)
        with monkeypatch.context() as stopped:
            stopped.setattr(made._selector, "select", lambda timeout: [])
            made.turn(0.0)
        stopped_until = monotonic() + 0.1
        wait_until(lambda: monotonic() > stopped_until)
        conclude(made, found, 2)
    assert [each.reached for each in found] == [None, None]


def test_checks_dropped_are_no_evidence(made: Checks, silent: Node) -> None:
    found: list[Found] = []
    made.start(silent, None, 5.0, found.append)
    made.turn(0.0)
    made.start(silent, None, 5.0, found.append)
    made.drop()
    assert [each.reached for each in found] == [None, None]
    assert not len(made)


def test_checks_hundreds_take_turns_and_urgent_first(
    made: Checks, silent: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "AT_ONCE", 10)
    monkeypatch.setattr(checks, "URGENT_AT_ONCE", 10)
    monkeypatch.setattr(checks, "LATE_S", EVENTUALLY_S)  # a busy host makes no check void
    found: list[Found] = []
    first: list[int] = []
    for _ in range(100):
        made.start(silent, None, 0.05, found.append)
    with BinReceiver() as receiver:
        made.start(
            node_for(1, receiver),
            None,
            1.0,
            lambda each: first.append(len(found)),
            urgent=True,
        )
        conclude(made, found, 100)
    assert first[0] < 20
    assert {each.reached for each in found} == {False}


@pytest.mark.parametrize(("files", "most"), [(OTHER_FILES + 1, 4), (OTHER_FILES + 160, 20)])
def test_checks_use_the_probers_part_of_descriptors(
    made: Checks, silent: Node, monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    """The deliveries in the same process have their own part."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(checks, "AGAIN_S", 0.01)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, limits[1]))
    assert prober_room() == most
    assert most + delivery_room() <= max(room(), most + 1)
    found: list[Found] = []
    for urgent in (True, False) * 10:
        made.start(silent, None, 0.2, found.append, urgent=urgent)
    sockets = 0

    def all_said() -> bool:
        nonlocal sockets
        made.turn(0.01)
        sockets = max(sockets, len(made._selector.get_map()))
        return len(found) == 20

    wait_until(all_said)
    assert 0 < sockets <= most
    assert False in {each.reached for each in found}


def test_checks_urgent_that_wait_too_long_find_nothing(
    made: Checks, silent: Node, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise more suspicions than a prober can check in time pile up as long as they come."""
    monkeypatch.setattr(checks, "AT_ONCE", 1)
    monkeypatch.setattr(checks, "URGENT_AT_ONCE", 1)
    found: list[Found] = []
    for _ in range(40):
        made.start(silent, None, 0.1, found.append, urgent=True)
    made.turn(0.0)
    clock.now += 0.1
    conclude(made, found, 40)
    assert {each.reached for each in found} == {False, None}
    assert sum(each.reached is None for each in found) >= 30
