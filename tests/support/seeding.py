"""Nodes put into Redis without a provisioning table, for tests that are about something else."""

from __future__ import annotations

from typing import Any

import redis

from clusterer.membership import Node
from clusterer.store import keys
from clusterer.store.encoding import encode_node


def put_node(client: redis.Redis, node: Node) -> Node:
    """Write ``node`` as a reload would; version and generation are the node's own, at least 1."""
    key = node.cluster
    fields: dict[Any, Any] = {
        **encode_node(node),
        "version": max(1, node.version),
        "generation": max(1, node.generation),
    }
    pipe = client.pipeline(transaction=True)
    pipe.hset(keys.node(*key, node.machine_id), mapping=fields)
    pipe.sadd(keys.nodes(*key), node.machine_id)
    pipe.sadd(keys.CLUSTERS, str(key))
    pipe.incr(keys.version(*key))
    pipe.execute()
    return node


def make_node(machine_id: int, *, cluster_id: int = 1, port: int = 5555, **changes: object) -> Node:
    """Return a plausible node of cluster 1 over BIN; ``changes`` are fields of `Node`."""
    values = {
        "id": machine_id,
        "cluster_id": cluster_id,
        "machine_id": machine_id,
        "url": f"bin:127.0.0.{machine_id}:{port}",
        "protocol": "bin",
        "host": f"127.0.0.{machine_id}",
        "port": port,
        "description": f"Node {machine_id}",
    } | changes
    return Node(**values)  # type: ignore[arg-type]  # fields of Node
