"""Broken links between hosts: what goes over whole links is not touched by them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest

from tests.support.hosts import DURATION_S, Hosts, Mark, Pair
from tests.support.processes import rounds

pytestmark = [pytest.mark.netns, pytest.mark.serial, pytest.mark.slow]

HEALED_S = DURATION_S + 3


@pytest.fixture(scope="module")
def three() -> Iterator[Hosts]:
    with Hosts({"a": (1,), "b": (2,), "c": (3,)}) as hosts:
        hosts.wait_until_sending()
        yield hosts


@pytest.fixture
def hosts(three: Hosts) -> Iterator[Hosts]:
    """Three hosts, one node each, all links whole; also after the test."""
    yield three
    three.network.heal()
    three.wait_until_healthy(HEALED_S + 5)


def watch(seconds: float) -> None:
    """Let the cluster go on for a while."""
    for _ in rounds(seconds, 0.5):
        pass


def assert_untouched(hosts: Hosts, mark: Mark, whole: Collection[Pair], seconds: float) -> None:
    """Check that senders sent over ``whole`` links all the time and skipped nothing."""
    counts = hosts.since(mark)
    assert {pair: counts[pair] for pair in whole if counts[pair].skipped} == {}
    assert {pair: counts[pair] for pair in whole if counts[pair].sent < 5 * seconds} == {}


def assert_healed(hosts: Hosts) -> None:
    """Mend all links, and check that no path stays closed and no packet is skipped any more."""
    hosts.network.heal()
    hosts.wait_until_healthy(HEALED_S)
    mark = hosts.mark()
    watch(1.5)
    assert_untouched(hosts, mark, hosts.pairs, 1)


def fallen(hosts: Hosts, mark: Mark) -> set[int]:
    return {c.machine_id for c in hosts.verdict_changes(mark) if c.before == "up"}


def test_link_cut_other_links_skip_nothing(hosts: Hosts) -> None:
    mark = hosts.mark()
    hosts.network.cut("a", "b")
    watch(10)
    cut = {(1, 2), (2, 1)}
    assert_untouched(hosts, mark, hosts.pairs - cut, 10)
    assert hosts.verdict_changes(mark) == []
    changes = hosts.path_changes(mark)
    assert {(c.sender, c.machine_id) for c in changes} == cut
    for sender, machine_id in cut:
        of_path = [c.after for c in changes if (c.sender, c.machine_id) == (sender, machine_id)]
        assert of_path == ["probing", "disabled"]
    assert_healed(hosts)
    assert hosts.verdict_changes(mark) == []


def test_host_cut_off_others_skip_nothing(hosts: Hosts) -> None:
    mark = hosts.mark()
    hosts.network.isolate("c")
    watch(10)
    assert_untouched(hosts, mark, {(1, 2), (2, 1)}, 10)
    assert fallen(hosts, mark) == {3}
    assert {"probing", "disabled"} <= {c.after for c in hosts.verdict_changes(mark)}
    assert len(hosts.verdict_changes(mark)) <= 12
    assert_healed(hosts)
    assert fallen(hosts, mark) == {3}


def test_link_loses_packets_verdicts_stay_up(hosts: Hosts) -> None:
    mark = hosts.mark()
    hosts.network.lose("a", "b", 0.3)
    watch(12)
    assert_untouched(hosts, mark, hosts.pairs - {(1, 2), (2, 1)}, 12)
    assert hosts.verdict_changes(mark) == []
    assert_healed(hosts)
