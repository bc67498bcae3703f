"""A Redis that lost everything gets the table again by itself; one that was emptied does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusterer.services import Context, provision
from clusterer.services.periodic import sweep
from clusterer.services.table import reload
from clusterer.settings import Settings, as_environment
from clusterer.store import keys
from tests.support.processes import spawn, wait_until
from tests.support.provisioning import KEY, NODE_A, NODE_B, MakeContext, contexts, sql
from tests.support.provisioning import provision as fill
from tests.support.redis_server import RedisServer


@pytest.fixture
def make(redis_url: str, tmp_path: Path) -> Iterator[MakeContext]:
    with contexts(redis_url=redis_url, db_url=f"sqlite:///{tmp_path / 'test.db'}") as factory:
        yield factory


def test_restore_after_data_loss_loads_table(make: MakeContext) -> None:
    context = make()
    fill(context, NODE_A, NODE_B)
    reload.run(context)
    assert not sweep.restore(context)
    before = context.nodes.view(KEY).nodes.keys()
    context.redis.flushall()
    assert sweep.restore(context)
    assert context.nodes.view(KEY).nodes.keys() == before
    assert not sweep.restore(context)


def test_restore_after_emptied_table_loads_nothing(make: MakeContext) -> None:
    context = make()
    fill(context, NODE_A)
    reload.run(context)
    provision.remove(context, (1, 1), by="test")
    sql(
        context, "INSERT INTO clusterer (cluster_id, machine_id, url) VALUES (1, 5, 'bin:10.0.0.1')"
    )
    assert not sweep.restore(context), "no command asked for that row"
    assert context.nodes.clusters() == []


def test_restore_with_nodes_in_redis_does_nothing(make: MakeContext) -> None:
    context = make()
    fill(context, NODE_A, NODE_B)
    provision.edit(context, (1, 1), {"duration": 9}, by="test")
    assert not context.redis.exists(keys.LOADED)
    assert not sweep.restore(context)
    assert list(context.nodes.view(KEY).nodes) == [1]


def test_restore_table_unreadable_retries_and_logs_once(
    make: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    context = make()
    with caplog.at_level(logging.WARNING):
        assert not sweep.restore(context)
        assert 0 < context.redis.ttl(keys.LOADED) <= sweep.RESTORE_AGAIN_S
        assert not sweep.restore(context), "not every second"
        fill(context, NODE_A)
        context.redis.delete(keys.LOADED)
        assert sweep.restore(context)
        assert context.redis.ttl(keys.LOADED) == -1
    told = [record.getMessage() for record in caplog.records]
    not_loaded, loaded = told
    assert not_loaded.startswith("Redis: no nodes, and the table was not loaded: ")
    assert loaded.startswith("Redis: had no nodes; loaded ")


def test_restore_table_of_other_redis_is_not_loaded(redis_url: str, tmp_path: Path) -> None:
    """A worker without db_url would load an old experiment from its data directory."""
    context = Context(Settings(redis_url=redis_url, data_dir=str(tmp_path)))
    fill(context, NODE_A)
    assert not sweep.restore(context)
    assert context.nodes.clusters() == []
    context.close()


@pytest.mark.slow
def test_restore_after_flushall_brings_all_back(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path
) -> None:
    server = own_redis_server()
    settings = Settings(redis_url=server.url, db_url=f"sqlite:///{tmp_path / 'test.db'}")
    context, env = Context(settings), as_environment(settings)
    fill(context, NODE_A, NODE_B)
    reload.run(context)
    with (
        spawn(["-m", "scheduler"], env),
        spawn(["-m", "workers", "maintenance"], env) as worker,
    ):
        worker.wait_for_output("takes jobs of")
        time.sleep(1)
        with server.client() as client:
            client.flushall()
            wait_until(lambda: client.exists(keys.LOADED), message="the table is loaded")
            wait_until(lambda: client.scard("rq:workers"), message="the worker is registered")
        assert list(context.nodes.view(KEY).nodes) == [1, 2]
    context.close()
