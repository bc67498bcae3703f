"""docs/deployment.md says how many connections to Redis each process keeps: no fewer, in fact."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clusterer import Clusterer, Settings
from clusterer.services.context import Context
from clusterer.services.table import init_db
from clusterer.settings import as_environment
from tests.support import docs
from tests.support.cluster import load, node, node_for
from tests.support.processes import rounds, spawn, wait_until
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

PROCESSES = {
    "`clusterer node`": ["-m", "clusterer", "node"],
    "delivery worker": ["-m", "workers", "delivery"],
    "maintenance worker": ["-m", "workers", "maintenance"],
    "database worker": ["-m", "workers", "database"],
    "scheduler": ["-m", "scheduler"],
}
PROGRAM = "program with a `Clusterer`"
MEASURED_S = 6.0
"""Time for more connections than documented, after the processes have theirs."""
SLACK = 5
"""Connections that a process does not need in each run."""


def documented() -> dict[str, int]:
    rows = docs.table_rows(docs.section("deployment.md", "Redis"), columns=2)[1:]
    return {what: int(most.split(",")[0]) for what, most in rows}


@pytest.mark.slow
def test_processes_keep_the_documented_connections(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path
) -> None:
    server, expected = own_redis_server(), documented()
    settings = Settings(redis_url=server.url, server_id=1, data_dir=str(tmp_path))
    settings = replace(settings, db_url=f"sqlite:///{tmp_path}/nodes.db", persistent_mode=True)
    init_db.run(Context(settings))
    with ExitStack() as stack:
        peer = stack.enter_context(BinReceiver())
        load(settings, [node(1), node_for(2, peer)])
        for words in PROCESSES.values():
            stack.enter_context(spawn(words, as_environment(settings)))
        sender = stack.enter_context(Clusterer(1, settings=settings))
        admin = stack.enter_context(server.client())
        limit = sum(expected[name] for name in (*PROCESSES, PROGRAM))

        def connections() -> int:
            sender.send_to(1, "bin", sender.packet("test", 1).push_int(1).build())
            found: Any = admin.client_list()
            return len(found) - 1

        wait_until(
            lambda: connections() >= limit - SLACK,
            message=f"{limit - SLACK} connections of the {limit} in docs/deployment.md",
        )
        most = max(connections() for _ in rounds(MEASURED_S, 0.02))
    assert most <= limit
