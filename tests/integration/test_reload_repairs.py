"""Whatever of the nodes is lost or wrong in Redis: a reload puts it right, and says so before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from clusterer.membership import Event
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.doctor import run as run_doctor
from clusterer.services.periodic import sweep
from clusterer.services.table import reload
from clusterer.store import Cause, keys
from clusterer.store.encoding import encode_node
from clusterer.store.key_types import expected_type
from tests.support.provisioning import KEY, contexts, provision
from tests.support.seeding import make_node
from tests.support.wrong_values import BESIDE, put_wrong_type, put_wrong_value

NODE = keys.node(*KEY, 2)
FROM_TABLE = [key for key in BESIDE if key != keys.LOADED]
ROWS = [NewRow(1, i, f"bin:127.0.0.{i}:5566") for i in (1, 2, 3)]
IGNORED = {b"version", b"epoch", b"generation"}


@pytest.fixture
def context(tmp_path: Path, redis_url: str) -> Iterator[Context]:
    """Three nodes, of which 3 is probing: it has a time and, in the table, another state."""
    with contexts(redis_url=redis_url, db_url=f"sqlite:///{tmp_path / 'n.db'}") as make:
        found = make(persistent_mode=True)
        provision(found, *ROWS)
        reload.run(found)
        found.nodes.command(KEY, 3, Event.SUSPECTED, Cause("test"))
        reload.run(found)
        yield found


def _held(client: redis.Redis) -> dict[str, Any]:
    """Return what the keys hold that a reload writes, but for numbers that only grow."""
    found: dict[str, Any] = {
        keys.CLUSTERS: client.smembers(keys.CLUSTERS),
        keys.nodes(*KEY): client.smembers(keys.nodes(*KEY)),
        keys.due(*KEY): {name for name, _ in client.zscan_iter(keys.due(*KEY))},
        keys.dirty(*KEY): client.zrange(keys.dirty(*KEY), 0, -1),
        keys.synced(*KEY): client.hgetall(keys.synced(*KEY)),
    }
    assert client.type(keys.events(1)) in (b"stream", b"none")
    for name in client.scan_iter(match=keys.node(*KEY, 0)[:-1] + "*"):
        fields: Any = client.hgetall(name)
        found[name.decode()] = {k: v for k, v in fields.items() if k not in IGNORED}
        assert fields.keys() >= IGNORED
    assert int(client.get(keys.version(*KEY)) or 0) >= max(
        int(client.hget(keys.node(*KEY, i), "version") or 0) for i in (1, 2, 3)
    )
    return found


def _mended(context: Context, spoil: Callable[[redis.Redis], object]) -> None:
    client = context.redis
    before = _held(client)
    spoil(client)
    foreseen = reload.preview(context)
    assert foreseen.repaired or foreseen.changed or foreseen.added
    told = [found for found in run_doctor(context) if found.check == "table and redis"]
    assert [found.advice for found in told] == ["run `clusterer reload`"]
    done = reload.run(context)
    assert done.repaired == foreseen.repaired
    assert [c.after.machine_id for c in done.changed] == [
        c.after.machine_id for c in foreseen.changed
    ]
    assert _held(client) == before
    again = reload.run(context)
    assert (again.unchanged, again.repaired) == (3, ())
    up = {node.machine_id for node in context.nodes.view(KEY).up()}
    assert up == {1, 2}, "node 3 keeps its state"


@pytest.mark.parametrize("key", [key for key in FROM_TABLE if key != keys.events(1)])
def test_reload_restores_a_lost_key(context: Context, key: str) -> None:
    if context.redis.exists(key):
        _mended(context, lambda client: client.delete(key))


@pytest.mark.parametrize("key", [*FROM_TABLE, NODE])
def test_reload_replaces_a_key_of_a_wrong_type(context: Context, key: str) -> None:
    _mended(context, lambda client: put_wrong_type(client, key))


@pytest.mark.parametrize("key", [key for key in FROM_TABLE if expected_type(key) != "stream"])
def test_reload_removes_foreign_members(context: Context, key: str) -> None:
    _mended(context, lambda client: put_wrong_value(client, key))


@pytest.mark.parametrize("field", [*encode_node(make_node(1)), "generation", "version"])
def test_reload_restores_a_lost_field(context: Context, field: str) -> None:
    _mended(context, lambda client: client.hdel(NODE, field))


@pytest.mark.parametrize("field", ["state", "host", "port", "machine_id", "version", "epoch"])
def test_reload_restores_a_wrong_field(context: Context, field: str) -> None:
    _mended(context, lambda client: client.hset(NODE, field, b"oops\xff"))


def test_reload_restores_a_lost_node_hash(context: Context) -> None:
    _mended(context, lambda client: client.delete(NODE))


def test_reload_removes_hashes_of_nodes_that_are_in_no_table(context: Context) -> None:
    def put(client: redis.Redis) -> None:
        client.hset(keys.node(*KEY, 77), mapping={"state": 1})
        client.rpush(keys.node(*KEY, 78), "oops")
        client.hset(keys.node(9, "bin", 5), mapping={"state": 1})
        client.sadd(keys.CLUSTERS, "12:bin")
        client.sadd(keys.nodes(*KEY), 79)

    _mended(context, put)
    assert not list(context.redis.scan_iter(match="clusterer:9:bin:node*"))


def test_reload_restores_all_lost_keys_at_once(context: Context) -> None:
    _mended(context, lambda client: client.delete(keys.CLUSTERS, keys.nodes(*KEY)))


def test_restore_with_a_wrong_set_of_clusters_loads_the_table(context: Context) -> None:
    context.redis.flushall()
    context.redis.set(keys.CLUSTERS, "oops")
    assert sweep.restore(context)
    assert context.redis.smembers(keys.CLUSTERS) == {b"1:bin"}
