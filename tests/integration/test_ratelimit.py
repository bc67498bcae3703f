"""Pipes shared over real sockets and a real Redis, and the example of docs/ratelimit.md."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterer import Clusterer, Settings
from clusterer.modules.ratelimit import RateLimit
from tests.support.cluster import delivering, load, node
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.receiver import BinReceiver
from tests.support.vectors import captured_frames

DOC = Path(__file__).parents[2] / "docs" / "ratelimit.md"


SETTINGS = {"linger": 0.5}


@contextmanager
def instance(settings: Settings, server_id: int, port: int) -> Iterator[RateLimit]:
    """Serve on ``port`` and yield the module, not started: intervals of half a second."""
    cluster = Clusterer(server_id, settings=settings)
    thread = threading.Thread(target=cluster.serve, name=f"serve {server_id}")
    limiter = RateLimit(
        cluster,
        replicate_pipes_to=1,
        accept_pipes_from=1,
        timer_interval=0.5,
        replication_interval=0.02,
    )
    with cluster:
        thread.start()
        try:
            wait_until(lambda: listens(port), message=f"node {server_id} listening")
            yield limiter
        finally:
            limiter.stop()
            cluster.stop()
            thread.join(EVENTUALLY_S)
    assert not thread.is_alive()


@contextmanager
def two_instances(settings: Settings) -> Iterator[tuple[RateLimit, RateLimit]]:
    """Run two instances, each sending once both can receive; no probe job runs."""
    ports = free_port(), free_port()
    load(settings, [node(1, ports[0]), node(2, ports[1])])
    with (
        delivering(settings),
        instance(settings, 1, ports[0]) as first,
        instance(settings, 2, ports[1]) as second,
        first,
        second,
    ):
        yield first, second


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def remote(limiter: RateLimit, machine_id: int) -> int:
    view = limiter.pipes().get("calls")
    return view.remote.get(machine_id, 0) if view else 0


def test_traffic_of_each_instance_appears_at_the_other(settings: Settings) -> None:
    with two_instances(settings) as (first, second):

        def seen_both_ways() -> bool:
            first.check("calls", 100)
            second.check("calls", 100)
            return remote(first, 2) > 0 and remote(second, 1) > 0

        wait_until(seen_both_ways, message="counters on both sides")
        assert first.stats.payload_errors == second.stats.payload_errors == 0


def test_limit_used_up_by_one_instance_refuses_at_other(settings: Settings) -> None:
    with two_instances(settings) as (busy, idle):

        def used_up_elsewhere() -> bool:
            for _ in range(50):
                busy.check("calls", 20)
            return remote(idle, 1) > 10

        wait_until(used_up_elsewhere, message="the busy instance's use to reach the idle one")
        assert not idle.check("calls", 20)
        assert idle.pipes()["calls"].counter == 1


def test_heartbeats_have_same_bytes_as_opensips(settings: Settings) -> None:
    """An instance with no pipe sends, byte for byte, the captured packet of node 1."""
    captured = {c.frame for c in captured_frames() if c.module == "ratelimit"}
    with BinReceiver() as peer, delivering(settings):
        port = free_port()
        load(settings, [node(1, port), node(2, peer.port)])
        with instance(settings, 1, port) as limiter, limiter:
            packets = peer.wait_for_frames(10)
    assert {packet.encode() for packet in packets} <= captured
    assert {packet.machine_id for packet in packets} == {1}


def test_docs_example_of_ratelimit_runs(
    settings: Settings,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    load(settings, [node(1, free_port()), node(2, free_port())])
    monkeypatch.setenv("CLUSTERER_REDIS_URL", redis_url)
    text = DOC.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, str(DOC), "exec"), {})  # noqa: S102  the example is ours
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert all(f"`{line}`" in text for line in printed)
