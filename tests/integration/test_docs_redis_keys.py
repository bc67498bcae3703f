"""docs/redis-keys/ against a running system: every key, its type, and what it holds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from clusterer import PROTO_BIN, Clusterer, Settings
from clusterer.ids import SERVER_TIMEOUT
from clusterer.jobs import keys as job_keys
from clusterer.jobs import move_aside, queue
from clusterer.listener import Listing
from clusterer.membership import Event
from clusterer.membership.suspicions import Kind
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.admin import console_users, set_status
from clusterer.services.periodic import history, timeouts
from clusterer.services.table import reload as reload_service
from clusterer.store import keys
from clusterer.store.links import LinkRecord, LinkStore
from clusterer.store.paths import Observation, PathStore, Reply
from clusterer.store.probers import ProberStore
from clusterer.store.suspicions import Opened, SuspicionStore
from scheduler import Scheduler, periodic_jobs
from tests.support import docs, redis_cli
from tests.support.cluster import CLUSTER, delivering
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.provisioning import provision
from tests.support.redis_cli import shape

PASSING = {"clusterer:lease:1", "clusterer:closing:1", "clusterer:handovers", "clusterer:capture:1"}
PASSING |= {job_keys.LOCK, "clusterer:inquiries:1"}
PASSING |= {keys.answer(str(docs.SAMPLE_ARGUMENTS["token"]))}
"""Leases and guards live for a second at most; tests of delivery see them, and those of
`clusterer tail` its capture, those of inquiries theirs. A scheduler that ends gives its lock up."""


@pytest.fixture
def traffic(redis_url: str, tmp_path: Path, redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """A system that has done everything that leaves a key; yields a client of its Redis."""
    chosen = Settings(
        redis_url=redis_url,
        data_dir=str(tmp_path),
        persistent_mode=True,
        backlog="replay",
        linger=0.2,
    )
    context = Context(chosen)
    urls = {machine_id: f"bin:127.0.0.{machine_id}:{free_port()}" for machine_id in (1, 2, 3)}
    provision(context, *(NewRow(1, m, url, description=f"Node {m}") for m, url in urls.items()))
    reload_service.run(context, by="operator root@sip1")
    with contextlib.ExitStack() as stack:
        stack.callback(context.close)
        first = stack.enter_context(_serving(chosen, 1))
        second = stack.enter_context(_serving(chosen, 2))
        notices: list[int] = []
        first.register_module(
            "ratelimit", PROTO_BIN, lambda *call: notices.append(call[0]), 1, 1, 1
        )
        got: list[int] = []
        second.register_module("ratelimit", PROTO_BIN, lambda *call: got.append(call[2]), 9, 1, 1)
        phones = ["alice", "bob"]
        first.list_for_others(
            1,
            Listing("contacts", phones.__len__, phones.copy, str.encode, lambda aor: {"aor": aor}),
        )
        set_status.run(context, 1, 3, 0, "bin", by="test")
        first.send_to(1, PROTO_BIN, first.packet("ratelimit", 0).build())
        with delivering(chosen):
            wait_until(lambda: got, message="a packet of node 1 at node 2")
            second.send_to(1, PROTO_BIN, second.packet("ratelimit", 0).build())
            wait_until(lambda: notices, message="a packet of node 2 at node 1")
            wait_until(lambda: redis_client.exists("clusterer:waiting:clusterer-delivery"))
        wait_until(lambda: _timed_out(context, notices), message="a timeout's notice")
        first.set_state(1, 2, 2, PROTO_BIN)
        first.send_to(1, PROTO_BIN, first.packet("ratelimit", 0).build())
        assert history.run(context)
        _break_path(context)
        links = LinkStore(chosen, redis_client)
        links.write(1, {(7, 2): LinkRecord("up", 1_795_389_473.3, 2, (1, 3), {"a": 1})})
        console_users.add_user(context, "anna", "operate", "a password")
        console_users.end_session(context, "5f0e4f6d9a3d1f6f0f3c2b1a3b8f0c7c", 3600)
        _schedule_and_junk(redis_client, chosen.delivery_queue)
        for key in redis_client.keys("clusterer:prober:*"):  # nothing renews them
            redis_client.pexpire(key, 60_000)
        yield redis_client


def _break_path(context: Context) -> None:
    """Node 1 is suspected, and the probers 2 and 3 are asked."""
    probers = ProberStore(context.settings, context.redis)
    paths = PathStore(context.settings, context.redis)
    suspicions = SuspicionStore(context.settings, context.redis)
    for prober in (2, 3):
        assert probers.heartbeat(prober, f"sip{prober}:1115:d29bdcb0", [CLUSTER])
    node, _ = context.nodes.read(CLUSTER, 1)
    assert node is not None
    assert suspicions.ack(node, 3, "test")
    began_ms, why = paths.now_ms() + 1, "Connection refused"
    wait_until(lambda: paths.now_ms() > began_ms, message="the attempt begins after the ack")
    seen = Observation(node, None, Event.SEND_FAILED, why, began_ms, "delivery of sender 1")
    ((reply, _),) = paths.observe(1, [seen])
    assert reply is Reply.ASK
    kind = Kind.SUSPECT
    opened = suspicions.open(node, kind, asking=2, reason=why, views={}, observation=(1, seen))
    assert opened is Opened.ASKED
    assert suspicions.widen(CLUSTER, 1, suspicions.all([CLUSTER])[CLUSTER][1])


def _schedule_and_junk(client: redis.Redis, name: str) -> None:
    """A scheduler and a worker that find what does not belong there."""
    client.zadd(job_keys.SCHEDULED, {"stranger": 1})
    scheduler = Scheduler(client, periodic_jobs(persistent_mode=False, history_interval=10))
    scheduler.name = str(docs.SAMPLE_ARGUMENTS["name"])
    scheduler.run(burst=True)
    ours = queue(name, client)
    client.delete(ours.key)
    client.rpush(ours.key, "stranger")
    assert ours.load(ours.pop(None) or "") is None
    client.set(ours.key, "text")
    assert move_aside(ours) == 1


def _timed_out(context: Context, notices: list[int]) -> bool:
    timeouts.run(context)
    return SERVER_TIMEOUT in notices


@contextlib.contextmanager
def _serving(settings: Settings, server_id: int) -> Iterator[Clusterer]:
    with Clusterer(server_id, settings=settings) as instance:
        thread = threading.Thread(target=instance.serve, name=f"serve {server_id}")
        thread.start()
        try:
            assert instance.listener.ready.wait(EVENTUALLY_S)
            yield instance
        finally:
            instance.stop()
            thread.join(EVENTUALLY_S)


def test_docs_redis_keys_in_use_are_listed_with_type(traffic: redis.Redis) -> None:
    patterns = docs.key_patterns()
    seen = set()
    for raw in traffic.keys("clusterer:*"):
        key = _text(raw)
        matches = [sample for sample, pattern in patterns.items() if pattern.fullmatch(key)]
        assert len(matches) == 1, f"{key}: {matches}"
        seen.add(matches[0])
        assert _documented_type(matches[0]) == _text(traffic.type(raw)), key
    assert set(patterns) - seen <= PASSING


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def _documented_type(key: str) -> str:
    text = docs.key_section(key)
    kinds = {"Sorted set": "zset", "Set": "set", "Hash": "hash", "String": "string"}
    kinds |= {"Stream": "stream", "List": "list"}
    return next(kind for word, kind in kinds.items() if text.startswith(word))


def test_docs_redis_cli_lines_are_of_different_keys() -> None:
    assert sorted(words[1] for words in docs.redis_cli_lines()) == sorted(docs.sample_keys())


def test_docs_redis_cli_output_is_as_shown(traffic: redis.Redis) -> None:
    """Names of fields, and what members and values are made of; not how many there are."""
    for command, key, *rest in docs.redis_cli_lines():
        # Node 1 has muted both others by now, and receives no packet.
        asked = key.replace("last-seen:1", "last-seen:2")
        reply = traffic.execute_command(command, asked, *rest)  # type: ignore[no-untyped-call]  # a wrong type or syntax raises
        if key not in PASSING:
            ours, page = redis_cli.received(reply), redis_cli.on_page(key)
            assert_alike(command, ours, page, docs.key_section(key))


def assert_alike(command: str, ours: list[str], page: list[str], section: str) -> None:
    """A hash may have fields that the page does not show, if it names them."""
    if command in ("XRANGE", "XREVRANGE"):
        assert list(map(shape, ours[1::2])) == list(map(shape, page[1::2]))
    elif command == "HGETALL":
        there, shown = fields_of(ours), fields_of(page)
        assert shown.keys() <= there.keys(), (there, shown)
        for name in there.keys() - shown.keys():
            assert f"`{name.rpartition('/')[2]}`" in section, name
        for name, value in shown.items():
            assert is_number(value) == is_number(there[name]), (name, value)
    else:
        assert set(map(shape, ours)) == set(map(shape, page))


def fields_of(strings: list[str]) -> dict[str, str]:
    return dict(zip(map(shape, strings[::2]), map(shape, strings[1::2]), strict=True))


def is_number(value: str) -> bool:
    return not value.replace("<n>", "").strip(" ,")
