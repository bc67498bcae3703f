"""The seven functions against a real Redis."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from clusterer import (
    PROTO_BIN,
    Clusterer,
    InvalidArgument,
    Node,
    Settings,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
    aio,
)
from clusterer.membership import Condition, State
from clusterer.store import ClusterKey, NodeStore, keys
from clusterer.wire import PacketBuilder
from tests.support.cluster import CLUSTER, load, node
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until
from tests.support.redis_server import RedisServer
from tests.support.streams import entries

SETTINGS = {"server_id": 1}


@pytest.fixture
def instance(settings: Settings) -> Iterator[Clusterer]:
    load(settings, [node(1), node(2, host="127.0.0.2"), node(3, host="127.0.0.3")])
    with Clusterer(settings=settings) as made:
        yield made


def ids(nodes: list[Node]) -> list[int]:
    return [found.machine_id for found in nodes]


def test_get_nodes_gives_the_other_nodes_that_are_up(instance: Clusterer) -> None:
    assert ids(instance.get_nodes(1, "bin")) == [2, 3]
    instance.set_state(1, 3, 0, PROTO_BIN)
    assert ids(instance.get_nodes(1, "bin")) == [2]


def test_get_nodes_of_an_unknown_cluster_is_empty(instance: Clusterer) -> None:
    assert instance.get_nodes(99, "bin") == []
    assert instance.get_nodes(1, "udp") == []


def test_get_nodes_gives_a_list_of_the_callers_own(instance: Clusterer) -> None:
    nodes = instance.get_nodes(1, "bin")
    instance.free_nodes(nodes)
    assert nodes == []
    assert ids(instance.get_nodes(1, "bin")) == [2, 3]


def test_set_state_is_visible_at_once_and_audited(
    instance: Clusterer, settings: Settings, redis_client: redis.Redis
) -> None:
    instance.set_state(1, 2, State.PROBING, "bin")  # a number, or the type of `Node.state`
    assert ids(instance.get_nodes(1, "bin")) == [3]
    found, _ = NodeStore(settings).read(CLUSTER, 2)
    assert found is not None
    assert (found.condition, found.no_tries) == (Condition.PROBING, 1)
    _, event = entries(redis_client, keys.events(1))[-1]
    assert (event[b"event"], event[b"by"]) == (b"suspected", b"set_state of instance 1")
    assert (event[b"before"], event[b"after"]) == (b"up", b"probing")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((1, 9, 0, "bin"), UnknownNode),
        ((9, 2, 0, "bin"), UnknownNode),
        ((1, 1, 0, "bin"), UnknownNode),
        ((1, 2, 0, "udp"), UnknownNode),
        ((1, 2, 3, "bin"), InvalidArgument),
        ((1, 2, True, "bin"), InvalidArgument),
        ((1, 2, 0, ""), InvalidArgument),
        ((0, 2, 0, "bin"), InvalidArgument),
    ],
)
def test_set_state_refuses_what_does_not_exist(
    instance: Clusterer, arguments: tuple[int, int, int, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        instance.set_state(*arguments)


def test_check_compares_ip_and_machine_id_and_nothing_else(instance: Clusterer) -> None:
    instance.set_state(1, 2, 0, "bin")
    assert instance.check(1, ("127.0.0.2", 40000), 2, "bin") == 1
    assert instance.check(1, ("::ffff:127.0.0.2", 40000, 0, 0), 2, "bin") == 1
    assert instance.check(1, ("127.0.0.3", 1), 2, "bin") == 0
    assert instance.check(1, ("127.0.0.2", 1), 3, "bin") == 0
    assert instance.check(2, ("127.0.0.2", 1), 2, "bin") == 0
    assert instance.check(1, ("127.0.0.1", 1), 1, "bin") == 0, "the own row is no node"


def test_send_to_returns_the_number_of_nodes_that_are_up(
    instance: Clusterer, redis_client: redis.Redis
) -> None:
    packet = instance.packet("test", 1).push_int(5).build()
    assert instance.send_to(1, "bin", packet) == 2
    instance.set_state(1, 2, 0, "bin")
    assert instance.send_many(1, "bin", [packet, packet]) == 1
    log = entries(redis_client, keys.log(1))
    assert [entry[b"frames"] for _, entry in log] == [packet.encode(), packet.encode() * 2]
    assert [entry[b"packets"] for _, entry in log] == [b"1", b"2"]
    assert [entry[b"n"] for _, entry in log] == [b"1", b"3"]
    assert [int(entry_id.split(b"-")[0]) for entry_id, _ in log] == [1, 3]


def test_send_to_many_packets_enqueue_one_job(
    instance: Clusterer, redis_client: redis.Redis
) -> None:
    packet = instance.packet("test", 1).build()
    for _ in range(50):
        instance.send_to(1, "bin", packet)
    assert redis_client.llen("rq:queue:clusterer-delivery") == 1


def test_send_to_enqueue_fails_after_append_is_no_error(
    instance: Clusterer, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.set("rq:queues", "of another type")
    assert instance.send_to(1, "bin", instance.packet("test", 1).build()) == 2
    assert "delivery job not enqueued" in caplog.text


def test_send_to_with_metrics_counts_by_cluster_and_module(
    instance: Clusterer, settings: Settings
) -> None:
    dialog, ul = (instance.packet(name, 1).push_int(7).build() for name in ("dialog", "ul"))
    with Clusterer(settings=settings, metrics_port=9) as metered:
        senders = [
            threading.Thread(target=lambda: [metered.send_to(1, "bin", ul) for _ in range(50)])
            for _ in range(4)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        metered.send_many(1, "bin", [dialog, ul, dialog])
        metered.send_many(1, "bin", [dialog] * 10)
        metered.send_many(1, "bin", [])
        with pytest.raises(UnknownCluster):
            metered.send_to(9, "bin", dialog)
        assert sorted(metered.offers) == [
            (CLUSTER, "dialog", 12, 12 * len(dialog.encode())),
            (CLUSTER, "ul", 201, 201 * len(ul.encode())),
        ]
    instance.send_to(1, "bin", dialog)
    assert list(instance.offers) == []


def test_send_to_invalid_cluster_protocol_or_type_raises(
    instance: Clusterer, redis_client: redis.Redis
) -> None:
    packet = instance.packet("test", 1).build()
    with pytest.raises(UnknownCluster):
        instance.send_to(7, "bin", packet)
    with pytest.raises(InvalidArgument, match="'udp'"):
        instance.send_to(1, "udp", packet)
    with pytest.raises(InvalidArgument, match="negative"):
        instance.send_to(1, "bin", PacketBuilder("test", -1, 1).build())
    assert not redis_client.exists(keys.log(1))


def test_send_to_cluster_just_loaded_is_accepted(instance: Clusterer, settings: Settings) -> None:
    packet = instance.packet("test", 1).build()
    instance.send_to(1, "bin", packet)
    load(settings, [node(1, cluster_id=5), node(2, cluster_id=5)], ClusterKey(5, "bin"))
    assert instance.send_to(5, "bin", packet) == 1


@pytest.mark.parametrize("server_id", [0, -1, 2**31, True])
def test_server_id_out_of_range_raises(server_id: int) -> None:
    with pytest.raises(InvalidArgument, match="server_id"):
        Clusterer(server_id=server_id)


def test_register_module_refuses_what_cannot_work(instance: Clusterer) -> None:
    def callback(*_: object) -> None:
        """Never called."""

    with pytest.raises(InvalidArgument, match="cluster_id"):
        instance.register_module("m", "bin", callback, 0, 1, None)
    with pytest.raises(InvalidArgument, match="'tls'"):
        instance.register_module("m", "tls", callback, 0, 0, 1)
    with pytest.raises(InvalidArgument):
        instance.register_module("m", "bin", callback, -1, 0, 1)


def test_stop_before_serve_makes_serve_return(instance: Clusterer) -> None:
    instance.stop()
    thread = threading.Thread(target=instance.serve)
    thread.start()
    thread.join(EVENTUALLY_S)
    assert not thread.is_alive()


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    with pytest.raises(StateUnavailable):
        call()
    return time.monotonic() - started


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_api_without_redis_fails_changes_and_answers_reads(
    own_redis_server: Callable[[], RedisServer], fault: str
) -> None:
    server = own_redis_server()
    settings = Settings(redis_url=server.url, server_id=1)
    load(settings, [node(1), node(2, host="127.0.0.2")])
    with Clusterer(settings=settings) as instance:
        packet = instance.packet("test", 1).build()
        instance.send_to(1, "bin", packet)
        getattr(server, fault)()
        assert timed(lambda: instance.send_to(1, "bin", packet)) < 2.2 + LATE_S
        assert timed(lambda: instance.set_state(1, 2, 0, "bin")) < 2.2 + LATE_S
        assert timed(lambda: instance.register_module("m", "bin", print, 1, 0, 1)) < 2.2 + LATE_S
        assert ids(instance.get_nodes(1, "bin")) == [2]
        assert instance.check(1, ("127.0.0.2", 1), 2, "bin") == 1
        server.resume() if fault == "pause" else server.start()
        wait_until(
            lambda: try_to(lambda: instance.send_to(1, "bin", packet)), message="sends again"
        )


def try_to(call: Callable[[], object]) -> bool:
    try:
        call()
    except StateUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("get_nodes", ([], "bin"), "cluster_id"),
        ("reachable_nodes", (None, "bin"), "cluster_id"),
        ("free_nodes", ("x",), "nodes"),
        ("check", (1, None, 2, "bin"), "sockaddr"),
        ("check", (1, ("127.0.0.2", 1), [], "bin"), "server_id"),
        ("set_state", (1, 2, [], "bin"), "state"),
        ("send_many", (1, "bin", 5), "packets"),
        ("flush", ("x",), "timeout"),
        ("flush", (True,), "timeout"),
        ("flush", (float("inf"),), "timeout"),
        ("register_module", ("m", "bin", print, 1e300, True, 1), "timeout"),
        ("list_for_others", (1, None), "listing"),
    ],
)
def test_bad_arguments_are_named_by_both_faces(
    settings: Settings, name: str, arguments: tuple[object, ...], named: str
) -> None:
    async def awaited() -> None:
        async with aio.Clusterer(settings=settings) as other:
            await getattr(other, name)(*arguments)

    with Clusterer(settings=settings) as one, pytest.raises(InvalidArgument, match=named):
        getattr(one, name)(*arguments)
    with pytest.raises(InvalidArgument, match=named):
        asyncio.run(awaited())
