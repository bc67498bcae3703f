"""Instances that a node leaves out: found by comparing what all instances hear."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import redis

from clusterer import Clusterer
from clusterer.membership import State
from clusterer.modules.ratelimit import RateLimit
from clusterer.services import Context
from clusterer.services.doctor import Finding, Level, receiving
from clusterer.services.periodic import timeouts
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.receipts import Receipts
from clusterer.store.watches import Reception, Watch
from tests.support.cluster import load, node
from tests.support.frames import frame
from tests.support.listening import peer
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until


@contextmanager
def instance(settings: Settings, server_id: int, timeout: float) -> Iterator[None]:
    """Serve with the ratelimit module, which believes node 1 at 127.0.0.1."""
    clusterer = Clusterer(server_id, settings=settings)
    module = RateLimit(
        clusterer, accept_pipes_from=1, accept_pipes_timeout=timeout, auth_check=True
    )
    thread = threading.Thread(target=clusterer.serve, name=f"serve {server_id}")
    with clusterer, module:
        thread.start()
        try:
            assert clusterer.listener.ready.wait(EVENTUALLY_S)
            yield
        finally:
            clusterer.stop()
            thread.join(EVENTUALLY_S)


@contextmanager
def node_1_sends_to(*ports: int) -> Iterator[None]:
    """Play an OpenSIPS that sends its heartbeat ten times a second, for a ``with`` block."""
    stop = threading.Event()

    def work() -> None:
        with ExitStack() as opened:
            peers = [opened.enter_context(peer(port, machine_id=1)) for port in ports]
            while not stop.wait(0.1):
                for connection in peers:
                    with suppress(OSError):
                        connection.sendall(frame(kind=0, sender=1))

    thread = threading.Thread(target=work, name="node 1")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(EVENTUALLY_S)


def findings(settings: Settings) -> list[Finding]:
    context = Context(settings)
    try:
        return list(receiving.check(context))
    finally:
        context.close()


@contextmanager
def two_instances(settings: Settings, timeout: float = 0) -> Iterator[tuple[int, int]]:
    ports = free_port(), free_port()
    load(settings, [node(1, free_port()), node(2, ports[0]), node(3, ports[1])])
    with instance(settings, 2, timeout), instance(settings, 3, timeout):
        yield ports


def waits(settings: Settings) -> bool:
    """Whether one instance saw node 1 so much longer ago than the other that it is suspected."""
    context = Context(settings)
    try:
        return bool(receiving.suspected(Receipts(settings, context.redis).receptions()))
    finally:
        context.close()


def test_instance_that_a_node_leaves_out_is_named(settings: Settings) -> None:
    with two_instances(settings) as (first, _), node_1_sends_to(first):
        wait_until(lambda: waits(settings), message="the suspicion")
        (found,) = findings(settings)
        assert found.level is Level.WARN
        text = "cluster 1: instance 3 receives nothing from node 1, which sends to others"
        assert found.text == text
        assert "clusterer_set_status 1 3 1 bin" in found.advice
        load(settings, [node(1), node(2), node(3, state=State.DOWN)])
        assert [each.level for each in findings(settings)] == [Level.OK]


def test_node_that_is_silent_to_all_is_no_finding(settings: Settings) -> None:
    with two_instances(settings) as ports, node_1_sends_to(*ports):
        assert [each.level for each in findings(settings)] == [Level.OK]
    with two_instances(settings) as (first, _):
        with node_1_sends_to(first):
            wait_until(lambda: waits(settings), message="the suspicion")
        (found,) = findings(settings)
        assert found.level is Level.OK
        assert found.text == (
            "2 instances; each receives from all nodes that send to other instances"
        )


def test_muted_node_counts_as_not_seen(settings: Settings, redis_client: redis.Redis) -> None:
    context = Context(settings)
    with two_instances(settings, timeout=6) as (first, second), node_1_sends_to(first):
        muted = keys.muted(3, "ratelimit", 1)
        with node_1_sends_to(second):
            wait_until(
                lambda: redis_client.zcard(keys.last_seen(3, "ratelimit", 1)), message="a packet"
            )

        def is_muted() -> bool:
            timeouts.run(context)
            return redis_client.zscore(muted, "1") is not None

        wait_until(is_muted, message="the end of the module timeout")
        wait_until(lambda: waits(settings), message="the suspicion")
        assert is_muted()
        assert [each.level for each in findings(settings)] == [Level.WARN]
    context.close()


# -- what two looks say ----------------------------------------------------------------------------


def look(receiver: int, at: int | None, module: str = "ratelimit", begun: int = 0) -> Reception:
    watch = Watch(receiver, module, module, 1, 10_000)
    return Reception(watch, begun, {} if at is None else {1: at}, 10_000)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([look(2, 9_000), look(3, 1_000)], [look(2, 13_000), look(3, 1_000)], [3]),
        ([look(2, 9_000), look(3, None)], [look(2, 13_000), look(3, None)], [3]),
        ([look(2, 9_000), look(3, 1_000)], [look(2, 9_000), look(3, 1_000)], []),
        ([look(2, 8_000), look(3, 1_000)], [look(2, 9_900), look(3, 1_000)], []),
        ([look(2, 9_000), look(3, 1_000)], [look(2, 13_000), look(3, 13_000)], []),
        ([look(2, 9_000), look(3, 9_000)], [look(2, 19_000), look(3, 9_000)], []),
        ([look(2, None), look(3, 1_000)], [look(2, 13_000), look(3, 1_000)], []),
        ([look(2, 9_000), look(3, None, begun=8_000)], [look(2, 13_000)], []),
        ([look(2, 9_000), look(3, 1_000, "ul")], [look(2, 13_000), look(3, 1_000, "ul")], []),
        ([look(1, 1_000), look(2, 9_000)], [look(1, 1_000), look(2, 13_000)], []),
    ],
)
def test_doctor_two_reads_name_instances_missing_a_node(
    before: list[Reception], after: list[Reception], found: list[int]
) -> None:
    assert [missed.receiver for missed in receiving.missing(before, after)] == found
