"""Broken links between hosts: what goes over whole links is not touched by them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hosts import Hosts
from tests.support.partitions import (
    assert_healed,
    assert_limited,
    assert_only_falls,
    assert_only_paths_break,
    assert_untouched,
    broken,
    fallen,
    watch,
)

pytestmark = [pytest.mark.netns, pytest.mark.hosts, pytest.mark.slow]


@pytest.fixture(scope="module")
def three() -> Iterator[Hosts]:
    with Hosts({"a": (1,), "b": (2,), "c": (3,)}) as hosts:
        yield hosts


@pytest.fixture
def hosts(three: Hosts) -> Iterator[Hosts]:
    """Three hosts, one node each, all links whole; also after the test."""
    three.wait_until_ready()
    yield three
    three.network.heal()


def test_link_cut_other_links_skip_nothing(hosts: Hosts) -> None:
    mark, cut = hosts.mark(), {(1, 2), (2, 1)}
    hosts.network.cut("a", "b")
    watch(9)
    assert_untouched(hosts, mark, hosts.pairs - cut)
    assert_only_paths_break(hosts, mark, cut)
    assert_healed(hosts)
    assert hosts.verdict_changes(mark) == []


def test_host_cut_off_others_skip_nothing(hosts: Hosts) -> None:
    mark, whole = hosts.mark(), {(1, 2), (2, 1)}
    hosts.network.isolate("c")
    watch(9)
    assert_untouched(hosts, mark, whole)
    assert_only_falls(hosts, mark, {3})
    assert_limited(hosts, mark)
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
