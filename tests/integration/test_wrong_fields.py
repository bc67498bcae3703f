"""A wrong or lost field of a node: it is named, and all other nodes go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from clusterer.services.status import node_list
from clusterer.store.encoding import encode_node
from tests.support.seeding import make_node
from tests.support.wrong_values import KEY, NODE, Everything, broken, everything

FIELDS = (*encode_node(make_node(1)), "generation", "version")
WRONG_FIELDS = (*FIELDS, "epoch")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    with everything(tmp_path_factory.mktemp("wrong")) as found:
        yield found


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_wrong_field_of_a_node_costs_that_node_alone(running: Everything, field: str) -> None:
    def put(client: redis.Redis, key: str) -> None:
        client.hset(key, field, b"oops\xff")

    with broken(running, NODE, put) as named:
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

    with broken(running, NODE, put) as named:
        assert NODE in named
