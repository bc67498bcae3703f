"""The safe RQ classes, the clients for RQ, and the stop flag."""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import sys
import threading
import zlib
from pathlib import Path
from typing import cast

import pytest
import redis
from fakeredis import FakeRedis
from rq.serializers import JSONSerializer, PickleSerializer
from rq.webhook import Webhook

from clusterer.errors import StateUnavailable
from clusterer.jobs import (
    JOB_FUNCTIONS,
    Job,
    JobRefused,
    Queue,
    connect,
    enqueue_delivery,
    keys,
    queue,
    queued,
)
from clusterer.runtime.stop import StopFlag
from clusterer.settings import Settings
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S


@pytest.fixture
def fake() -> redis.Redis:
    return FakeRedis(version=(7,))


def plant(client: redis.Redis, job_id: str, data: object, **fields: str) -> None:
    """Write a job's hash as a program with access to Redis but without our classes would."""
    raw = data if isinstance(data, bytes) else zlib.compress(json.dumps(data).encode())
    client.hset(f"rq:job:{job_id}", "data", raw)
    for name, value in {"status": "queued", **fields}.items():
        client.hset(f"rq:job:{job_id}", name, value)


def test_queue_and_job_use_json_whatever_they_are_told(fake: redis.Redis) -> None:
    told_pickle = Queue("q", connection=fake, serializer=PickleSerializer)
    assert told_pickle.serializer is JSONSerializer
    assert told_pickle.job_class is Job
    assert Job("j", connection=fake, serializer=PickleSerializer).serializer is JSONSerializer


def test_queue_insists_on_its_job_class(fake: redis.Redis) -> None:
    assert Queue("q", connection=fake, job_class="rq.job.Job").job_class is Job


def test_queue_from_every_way_is_safe(fake: redis.Redis) -> None:
    enqueue_delivery("q", fake)
    for found in (*Queue.all(fake), Queue.from_queue_key("rq:queue:q", fake), queue("q", fake)):
        assert (found.serializer, found.job_class) == (JSONSerializer, Job)
        assert [type(job) for job in found.jobs] == [Job]
        assert found.failed_job_registry.job_class is Job


def test_foreign_function_is_refused_before_it_is_imported(fake: redis.Redis) -> None:
    assert "this" not in sys.modules
    plant(fake, "j", ["this.d", None, [], {}])
    job = Job.fetch("j", connection=fake)
    with pytest.raises(JobRefused, match=r"'this\.d' refused: not one of .*workers\.deliver"):
        job.perform()
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "data",
    [
        ["os.system", None, ["true"], {}],
        ["workers.deliver.__globals__", None, [], {}],
        ["upper", "an instance", [], {}],
        ["workers.deliver", "an instance", ["q"], {}],
        [["workers.deliver"], None, [], {}],
        [None, None, [], {}],
    ],
)
def test_job_data_that_is_none_of_ours_is_refused(fake: redis.Redis, data: object) -> None:
    plant(fake, "j", data)
    with pytest.raises(JobRefused):
        Job.fetch("j", connection=fake).perform()


def test_foreign_function_is_refused_when_enqueued(fake: redis.Redis) -> None:
    with pytest.raises(JobRefused):
        queue("q", fake).enqueue("os.system", "true")
    assert queued("q", fake) == 0


def test_allow_list_is_exactly_the_job_functions() -> None:
    names = ("deliver", "probe", "check_timeouts", "sweep", "sync", "record_history", "reach")
    assert {f"workers.{name}" for name in names} == JOB_FUNCTIONS


def test_planted_callbacks_and_webhooks_are_ignored(
    fake: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(Webhook, "send", lambda self, job, **_: sent.append(self.url))
    hook = {"url": "http://127.0.0.1:9/", "job_status": "failed"}
    plant(
        fake,
        "j",
        ["workers.probe", None, [], {}],
        success_callback_name="os.abort",
        failure_callback_name="os.abort",
        stopped_callback_name="os.abort",
        webhooks=json.dumps([hook]),
    )
    job = Job.fetch("j", connection=fake)
    assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None, None, None)
    assert job.webhooks
    job.send_webhooks("failed")
    assert not sent


def test_popped_job_is_in_the_intermediate_list(fake: redis.Redis) -> None:
    enqueue_delivery("q", fake)
    ours = queue("q", fake)
    job_id = ours.pop(None)
    assert job_id is not None
    assert ours.intermediate_queue.get_job_ids() == [job_id]
    assert ours.pop(None) is None


def test_loads_the_job_it_popped(fake: redis.Redis) -> None:
    enqueue_delivery("q", fake)
    ours = queue("q", fake)
    job = ours.load(ours.pop(None) or "")
    assert job is not None
    assert (job.func_name, list(job.args)) == ("workers.deliver", ["q"])


@pytest.mark.parametrize("case", ["gone", "no data", "bad timeout", "not a hash", "bad id"])
def test_unreadable_job_is_dropped(fake: redis.Redis, case: str) -> None:
    job_id = "!!" if case == "bad id" else "j"
    match case:
        case "no data":
            fake.hset("rq:job:j", "status", "queued")
        case "bad timeout":
            plant(fake, "j", ["workers.probe", None, [], {}], timeout="soon")
        case "not a hash":
            fake.set("rq:job:j", "text")
    fake.rpush("rq:queue:q", job_id)
    ours = queue("q", fake)
    assert ours.load(ours.pop(None) or "") is None
    assert ours.intermediate_queue.get_job_ids() == []
    assert ours.junk_filter.junk == 1
    (line,) = cast(list[bytes], fake.lrange(keys.junk("q"), 0, -1))
    assert f"'{job_id}' its".encode() in line


def test_pickled_data_is_not_unpickled(fake: redis.Redis, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    bomb = pickle.dumps(Bomb())
    fake.hset("rq:job:j", mapping={"data": bomb, "meta": bomb, "result": bomb})
    job = Job.fetch("j", connection=fake)
    with pytest.raises(Exception, match=r"^$"):
        job.perform()
    assert not (tmp_path / "exploded").exists()


def test_wake_up_carries_the_queue_name_only(fake: redis.Redis) -> None:
    enqueue_delivery("q", fake)
    (job,) = queue("q", fake).jobs
    assert (job.func_name, list(job.args), job.kwargs) == ("workers.deliver", ["q"], {})
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (-1, 60, 3600)


def test_queued_counts_what_waits(fake: redis.Redis) -> None:
    assert queued("q", fake) == 0
    enqueue_delivery("q", fake)
    enqueue_delivery("q", fake)
    assert queued("q", fake) == 2
    queue("q", fake).pop(None)
    assert queued("q", fake) == 1


def test_redis_down_raises_state_unavailable() -> None:
    client = connect(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(StateUnavailable, match="cannot enqueue a delivery job in queue q"):
        enqueue_delivery("q", client)
    with pytest.raises(StateUnavailable, match="cannot look into queue q"):
        queued("q", client)


def test_client_for_rq_gives_bytes_whatever_the_url_says() -> None:
    url = "redis://127.0.0.1:1/0?decode_responses=True"
    kwargs = connect(Settings(redis_url=url)).connection_pool.connection_kwargs
    assert kwargs["decode_responses"] is False
    assert kwargs["retry"]._retries == 0


def test_client_without_a_url_is_the_embedded_redis(tmp_path: Path) -> None:
    kwargs = connect(Settings(data_dir=str(tmp_path))).connection_pool.connection_kwargs
    assert kwargs["path"] == str(tmp_path / "redis.sock")


# --------------------------------------------------------------------------- stop flag


def test_stop_flag_is_set_once_for_all() -> None:
    flag = StopFlag()
    assert not flag.is_set()
    assert not flag.wait(0)
    flag.set()
    flag.set()
    assert flag.is_set()
    assert flag.wait()
    flag.close()


def test_stop_flag_can_be_selected_on() -> None:
    flag = StopFlag()
    assert select.select([flag], [], [], 0)[0] == []
    flag.set()
    assert select.select([flag], [], [], 0)[0] == [flag]
    flag.close()


def test_signal_handler_ends_the_wait_it_interrupts() -> None:
    flag = StopFlag()
    before = signal.signal(signal.SIGUSR1, lambda *_: flag.set())
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        assert flag.wait(EVENTUALLY_S)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
        flag.close()
