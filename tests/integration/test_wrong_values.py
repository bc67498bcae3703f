"""A wrong type or value in any key: it is named, everything else goes on, and so does the key
once it is right again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from clusterer.membership import Event
from clusterer.store import Cause, keys
from tests.support.wrong_values import (
    ALL,
    KEY,
    NODE,
    QUEUE,
    Everything,
    broken,
    everything,
    put_wrong_type,
    put_wrong_value,
)

NOT_READ = {
    keys.LOADED,
    keys.QUEUES,
    keys.SENDERS,
    keys.notices(1),
    keys.capture(1),
    keys.log(1),
    keys.committed(1),
    keys.committed_count(1),
    keys.closing(1),
    keys.stats(1),
    keys.lease(1),
    keys.ring(QUEUE),
    keys.prober(1),
    keys.prober_ring(1),
    keys.probers_ring(*KEY),
    keys.REGISTRATIONS,
    keys.shares(QUEUE),
    keys.listings(1),
    keys.inquiries(1),
    keys.links(1),
}
"""Keys in which what `put_wrong_value` puts is of no interest to what runs here."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    with everything(tmp_path_factory.mktemp("wrong")) as found:
        yield found


@pytest.mark.parametrize("key", ALL)
def test_wrong_type_is_named_and_stops_nothing_else(running: Everything, key: str) -> None:
    with broken(running, key, put_wrong_type) as named:
        assert key in named


@pytest.mark.parametrize("key", ALL)
def test_wrong_value_is_named_and_stops_nothing_else(running: Everything, key: str) -> None:
    with broken(running, key, put_wrong_value) as named:
        assert key in NOT_READ or key in named


@pytest.mark.parametrize("put", [put_wrong_type, put_wrong_value])
def test_jobs_with_one_bad_node_do_their_work_for_others(
    running: Everything, put: Callable[[redis.Redis, str], None]
) -> None:
    _disable(running, 4)
    with broken(running, NODE, put):
        running.client.hset(keys.node(*KEY, 4), "last_attempt", 1)
        running.client.zadd(keys.due(*KEY), {"3": 1, "4": 1})
        running.jobs()["probe"]()
        assert running.client.hget(keys.node(*KEY, 4), "state") == b"1"
        running.jobs()["sync"]()
        assert running.client.zscore(keys.dirty(*KEY), "4") is None


def _disable(running: Everything, machine_id: int) -> None:
    running.set_up(KEY, machine_id, up=True)
    for _ in range(3):
        running.context.nodes.command(KEY, machine_id, Event.SUSPECTED, Cause("test"))
