"""Broken links between hosts: what goes over whole links is not touched by them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hosts import Hosts
from tests.support.partitions import (
    assert_healed,
    assert_untouched,
    broken,
    conditions,
    fallen,
    watch,
)

pytestmark = [pytest.mark.netns, pytest.mark.hosts, pytest.mark.slow]


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
    three.wait_until_healthy(15.0)
    three.wait_until_sending()


def test_link_cut_other_links_skip_nothing(hosts: Hosts) -> None:
    mark, cut = hosts.mark(), {(1, 2), (2, 1)}
    hosts.network.cut("a", "b")
    watch(9)
    assert_untouched(hosts, mark, hosts.pairs - cut)
    assert hosts.verdict_changes(mark) == []
    assert conditions(hosts, mark) == {pair: ["probing", "disabled"] for pair in cut}
    assert_healed(hosts)
    assert hosts.verdict_changes(mark) == []


def test_host_cut_off_others_skip_nothing(hosts: Hosts) -> None:
    mark, whole = hosts.mark(), {(1, 2), (2, 1)}
    hosts.network.isolate("c")
    watch(9)
    assert_untouched(hosts, mark, whole)
    assert fallen(hosts, mark) == {3}
    assert conditions(hosts, mark)[0, 3][:2] == ["probing", "disabled"]
    assert len(hosts.verdict_changes(mark)) <= 12
    assert_healed(hosts)
    assert fallen(hosts, mark) == {3}
    assert not broken(hosts, mark) & whole


def test_link_loses_packets_verdicts_stay_up(hosts: Hosts) -> None:
    mark, lossy = hosts.mark(), {(1, 2), (2, 1)}
    hosts.network.lose("a", "b", 0.3)
    watch(12)
    assert_untouched(hosts, mark, hosts.pairs - lossy)
    assert broken(hosts, mark) <= lossy
    assert_healed(hosts)
    assert hosts.verdict_changes(mark) == []
