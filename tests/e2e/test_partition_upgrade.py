"""Delivery workers of the version before paths, beside new ones, while a host is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.archive import BEFORE_PATHS, extracted
from tests.support.hosts import Hosts
from tests.support.partitions import (
    assert_healed,
    assert_nothing_skipped,
    assert_untouched,
    broken,
    fallen,
    watch,
)
from tests.support.scale import scaled

pytestmark = [
    pytest.mark.netns,
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not scaled(0, 1), reason="only with TEST_SCALE=full"),
]

WHOLE = {(1, 2), (2, 1)}


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The code of the version before, in a directory of its own."""
    return extracted(BEFORE_PATHS, tmp_path)


def test_old_worker_beside_new_upgrade_in_steps(before: Path) -> None:
    """New hosts skip nothing between them; all is right once the last worker is new."""
    machines = {"a": (1,), "b": (2,), "c": (3,)}
    with Hosts(machines, code=dict.fromkeys(machines, before)) as hosts:
        hosts.wait_until_ready()
        hosts.upgrade("a")
        hosts.upgrade("b")
        hosts.wait_until_ready()
        mark = hosts.mark()
        hosts.network.isolate("c")
        watch(10)
        assert_untouched(hosts, mark, WHOLE)
        assert not broken(hosts, mark) & WHOLE
        assert_healed(hosts)

        hosts.upgrade("c")
        hosts.wait_until_ready()
        mark = hosts.mark()
        hosts.network.isolate("c")
        watch(10)
        assert_untouched(hosts, mark, WHOLE)
        assert fallen(hosts, mark) == {3}
        assert_healed(hosts)
        assert not broken(hosts, mark) & WHOLE


def test_new_worker_beside_old_heals(before: Path) -> None:
    """Old hosts skip packets as they always did; no state stays behind."""
    with Hosts({"a": (1,), "b": (2,), "c": (3,)}, code={"a": before, "b": before}) as hosts:
        hosts.wait_until_ready()
        hosts.network.isolate("c")
        watch(10)
        assert_healed(hosts)
        mark = hosts.mark()
        watch(5)
        assert_nothing_skipped(hosts, mark, hosts.pairs)
        assert fallen(hosts, mark) == set()
