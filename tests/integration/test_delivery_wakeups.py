"""A worker comes whatever happens to the jobs that call it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import redis

from clusterer import jobs
from clusterer.delivery import Engine
from clusterer.services import Context
from clusterer.services.periodic import sweep
from clusterer.settings import Settings
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers
from tests.support.frames import frame
from tests.support.processes import LATE_S, wait_until
from tests.support.receiver import BinReceiver
from tests.support.scale import scaled
from workers import runtime
from workers.worker import Worker

SETTINGS = {"linger": 0.3, "send_timeout": 1.0}


def test_delivery_packet_after_silence_wakes_worker_at_once(
    settings: Settings, redis_client: redis.Redis
) -> None:
    settings = replace(settings, linger=0.05)
    engine = Engine(settings, settings.delivery_queue)
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        log = PacketLog(settings, 1)
        for number in range(3):
            assert log.append(CLUSTER, [frame(number)]), "a job is to be enqueued"
            assert not log.append(CLUSTER, [frame(number)]), "one only"
            engine.run()
        peer.wait_for_frames(6)
    engine.close()


def test_delivery_running_job_claims_pending_sender_at_once(
    settings: Settings,
) -> None:
    settings, senders = replace(settings, linger=30.0), range(11, 21)
    with BinReceiver() as peer:
        load(settings, [node(1), *(node(s) for s in senders), node_for(2, peer)])
        with delivering(settings):
            PacketLog(settings, 1).append(CLUSTER, [frame(0)])
            peer.wait_for_frames(1)
            for count, sender in enumerate(senders, 2):
                PacketLog(settings, sender).append(CLUSTER, [frame(0, sender=sender)])
                peer.wait_for_frames(count, LATE_S)


@pytest.mark.parametrize("fault", ["lost job", "doubled job", "flushed queue"])
def test_delivery_goes_on_whatever_happens_to_the_rq_job(
    settings: Settings, redis_client: redis.Redis, fault: str
) -> None:
    with BinReceiver() as peer:
        load(settings, [node(1), node_for(2, peer)])
        queue = settings.delivery_queue
        if PacketLog(settings, 1).append(CLUSTER, [frame(0)]) and fault != "lost job":
            for _ in range(2 if fault == "doubled job" else 1):
                jobs.enqueue_delivery(queue, jobs.connect(settings))
        if fault == "flushed queue":
            redis_client.delete(f"rq:queue:{queue}")
        if fault != "doubled job":
            wait_until(lambda: sweep.run(Context(settings)), message="the sweep wakes a worker")
        state = runtime.start(settings)
        worker = Worker(queue, connection=jobs.connect(settings))
        worker.work(burst=True, logging_level=None)
        peer.wait_for_frames(1)
        state.close()
    assert numbers(peer) == [0]


@pytest.mark.timeout(600)
def test_delivery_every_send_wakes_a_worker(settings: Settings, redis_client: redis.Redis) -> None:
    """Logs are given back all the time while senders go on: the wake-up race."""
    settings = replace(settings, linger=0.005)
    senders, each = (1, 11, 12, 13), scaled(400, 5_000)
    with BinReceiver() as peer:
        load(settings, [*(node(s) for s in senders), node_for(2, peer)])

        def send(sender: int) -> None:
            log = PacketLog(settings, sender)
            for number in range(each):
                log.append(CLUSTER, [frame(number, sender=sender)])
                if number % 7 == sender % 7:
                    time.sleep(0.006)

        with delivering(settings), delivering(settings):
            threads = [threading.Thread(target=send, args=(s,)) for s in senders]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            peer.wait_for_frames(len(senders) * each)
    for sender in senders:
        got = [p.fields().pop_int() for p in peer.packets if p.machine_id == sender]
        assert got == list(range(each))
