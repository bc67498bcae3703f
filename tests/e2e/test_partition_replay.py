"""A broken link with ``backlog = "replay"``: the packets wait, and wake no worker in vain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterer import jobs
from clusterer.membership import Condition
from clusterer.store import keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER
from tests.support.frames import frame
from tests.support.hosts import Hosts
from tests.support.partitions import watch
from tests.support.processes import wait_until
from tests.support.scale import scaled

pytestmark = [pytest.mark.netns, pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(600)]

BROKEN_S = scaled(12, 60)
MOST_JOBS = 2
"""Of one path that is down: the job that breaks it, and one for what came while that job ended."""


def jobs_of(hosts: Hosts, queue: str) -> int:
    """Return how many delivery jobs the workers of a queue have run."""
    names = hosts.client.scan_iter("rq:worker:*", _type="hash")
    workers = [hosts.client.hgetall(name) for name in names]
    return sum(
        int(worker.get(b"successful_job_count", 0)) + int(worker.get(b"failed_job_count", 0))
        for worker in workers
        if worker.get(b"queues") == queue.encode()
    )


def all_listen(hosts: Hosts) -> bool:
    return all(hosts.client.hget(keys.modules(m), "heartbeat") for m in hosts.host_of)


def test_path_down_replay_starts_two_jobs_at_most() -> None:
    machines = {"a": (1,), "b": (2,), "c": (3,)}
    with Hosts(
        machines, silent=(1, 2, 3), backlog="replay", backlog_max_age=600.0, linger=1.0
    ) as hosts:
        present = keys.probers(*CLUSTER)
        wait_until(lambda: hosts.client.zcard(present) == len(machines), message="all are present")
        wait_until(lambda: all_listen(hosts) and not hosts.troubles(), message="all is healthy")
        sender = replace(hosts.settings, server_id=1, delivery_queue="q-a")
        queue, waiting = sender.delivery_queue, keys.waiting(sender.delivery_queue)
        hosts.network.cut("a", "b")
        before, mark = jobs_of(hosts, queue), hosts.mark()
        if PacketLog(sender, 1).append(CLUSTER, [frame(0)]):
            jobs.enqueue_delivery(queue, jobs.connect(sender))
        wait_until(lambda: hosts.client.sismember(waiting, "1"), message="the sender waits")
        watch(BROKEN_S)
        assert 1 <= jobs_of(hosts, queue) - before <= MOST_JOBS
        assert hosts.closed().keys() == {(1, 2)}
        assert set(hosts.verdicts().values()) == {Condition.UP}
        hosts.network.heal()
        wait_until(lambda: hosts.since(mark)[1, 2].sent == 1, message="the packet arrives")
        counts = hosts.since(mark)
        assert (counts[1, 2].skipped, counts[1, 2].lost, counts[1, 3].sent) == (0, 0, 1)
        assert not hosts.client.sismember(waiting, "1")
