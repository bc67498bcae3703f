"""A wrong type or value in any key: it is named, everything else goes on, and so does the key
once it is right again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis

from clusterer.errors import ClustererError
from clusterer.membership import Event
from clusterer.services.status import node_list
from clusterer.store import Cause, ClusterKey, keys
from clusterer.store.badvalues import collected
from clusterer.store.encoding import encode_node
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node
from tests.support.wrong_values import (
    ALL,
    KEY,
    NODE,
    OTHER,
    QUEUE,
    Everything,
    everything,
    put_back,
    put_wrong_type,
    put_wrong_value,
)

FIELDS = (*encode_node(make_node(1)), "generation", "version")
WRONG_FIELDS = (*FIELDS, "epoch")
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
}
"""Keys in which what `put_wrong_value` puts is of no interest to what runs here."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    database = f"sqlite:///{tmp_path_factory.mktemp('wrong') / 'nodes.db'}"
    with (
        RedisServer() as server,
        server.client() as client,
        everything(server.url, database, client) as found,
    ):
        yield found


@pytest.mark.parametrize("key", ALL)
def test_wrong_type_is_named_and_stops_nothing_else(running: Everything, key: str) -> None:
    with _broken(running, key, put_wrong_type) as named:
        assert key in named


@pytest.mark.parametrize("key", ALL)
def test_wrong_value_is_named_and_stops_nothing_else(running: Everything, key: str) -> None:
    with _broken(running, key, put_wrong_value) as named:
        assert key in NOT_READ or key in named


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_wrong_field_of_a_node_costs_that_node_alone(running: Everything, field: str) -> None:
    def put(client: redis.Redis, key: str) -> None:
        client.hset(key, field, b"oops\xff")

    with _broken(running, NODE, put) as named:
        assert field in {"url", "description"} or NODE in named
        listed = {
            node.machine_id
            for view in node_list.run(running.context).clusters
            for node in view.nodes.values()
            if view.key == KEY
        }
        assert listed >= {1, 2, 4}


@pytest.mark.parametrize("field", FIELDS)
def test_lost_field_of_a_node_costs_that_node_alone(running: Everything, field: str) -> None:
    def put(client: redis.Redis, key: str) -> None:
        client.hdel(key, field)

    with _broken(running, NODE, put) as named:
        assert NODE in named


@pytest.mark.parametrize("put", [put_wrong_type, put_wrong_value])
def test_jobs_with_one_bad_node_do_their_work_for_others(
    running: Everything, put: Callable[[redis.Redis, str], None]
) -> None:
    _disable(running, 4)
    with _broken(running, NODE, put):
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


class _broken:  # noqa: N801 - reads as a word of the `with` statement
    """Put something wrong into a key, run everything, and put it right again.

    Gives the keys that were named. No job may fail. All that does not depend on the key has to go
    on, and that key's part too, once it is right.
    """

    def __init__(
        self, running: Everything, key: str, put: Callable[[redis.Redis, str], None]
    ) -> None:
        self._running, self._key, self._put = running, key, put
        self._dumped: bytes | None = None

    def __enter__(self) -> set[str]:
        running, key = self._running, self._key
        self._dumped = running.client.dump(key)
        self._put(running.client, key)
        with collected() as found:
            said = [str(job()) for job in running.jobs().values()]
            with suppress(ClustererError):
                running.instance.send_to(1, "bin", running.instance.packet("m", 1).build())
        self._see_changes(OTHER, 5)
        if key != keys.modules(1):
            self._see_flushes()
        named = {bad.key for bad in found}
        return named | ({key} if any(key in text for text in said) else set())

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        running = self._running
        put_back(running.client, self._key, self._dumped)
        if error is None:
            self._see_changes(KEY, 2)
            self._see_flushes()
            for job in running.jobs().values():
                job()

    def _see_changes(self, key: ClusterKey, machine_id: int) -> None:
        running = self._running
        up = not running.sees(key, machine_id, up=True)
        running.set_up(key, machine_id, up=up)
        wait_until(lambda: running.sees(key, machine_id, up=up), message=f"node {machine_id}: {up}")

    def _see_flushes(self) -> None:
        before = self._running.heartbeat()
        wait_until(lambda: self._running.heartbeat() != before, message="the instance flushes")
