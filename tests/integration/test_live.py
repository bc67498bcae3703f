"""`clusterer top` and `watch` in a real (pseudo) terminal and in a pipe, on a real Redis."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from clusterer.cli import main
from clusterer.jobs.fleet import KEY_TTL_S, LATE_S, SILENT_S
from clusterer.jobs.keys import SCHEDULED
from clusterer.membership import Event
from clusterer.services.context import Context
from clusterer.services.live import Reader, rows
from clusterer.settings import Settings
from clusterer.store import Cause, ClusterKey, NodeStore, keys
from tests.support.processes import child_environment, die_with_parent, end_group, spawn, wait_until
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node

Capture = pytest.CaptureFixture[str]

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
KEY = ClusterKey(1, "bin")


def put_example(client: redis.Redis) -> None:
    put_node(client, make_node(1, generation=7))
    put_node(client, make_node(2, generation=8))
    client.hset(keys.counters(1), mapping={"sequence": 100, "1:bin": 90})
    client.hset(keys.committed_count(1), mapping={"1/2/8": 70})
    client.hset(keys.stats(1), mapping={"1/2/8/sent": 60, "1/2/8/lost": 6})
    now_ms = int(time.time() * 1000)
    client.sadd(keys.INSTANCES, 1)
    client.hset(keys.modules(1), mapping={"ratelimit:1": 10_000, "heartbeat": now_ms + 60_000})
    client.zadd(keys.last_seen(1, "ratelimit", 1), {"2": now_ms - 3000})


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int, mode: list[object]) -> None:
        self.process = process
        self.written = b""
        self._fd = fd
        self._mode = mode

    def wait_for(self, text: bytes, *, after: int = 0) -> None:
        wait_until(lambda: text in self._all()[after:], message=f"{text!r} in {self.written!r}")

    def press(self, pressed: bytes) -> None:
        os.write(self._fd, pressed)

    def assert_left_clean(self) -> None:
        assert self.process.wait(10) == 0
        assert LEAVE in self._all()
        assert termios.tcgetattr(self._fd) == self._mode

    def _all(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            self.written += os.read(self._fd, 65536)
        return self.written


@contextlib.contextmanager
def terminal(url: str, *arguments: str, size: tuple[int, int] = (24, 80)) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    mode = termios.tcgetattr(ours)
    os.set_blocking(ours, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "clusterer", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=child_environment({"CLUSTERER_REDIS_URL": url, "TERM": "xterm"}),
        start_new_session=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - only system calls between fork and exec
    )
    try:
        yield Terminal(process, ours, mode)
    finally:
        end_group(process)
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("arguments", [("top",), ("watch", "2")], ids=" ".join)
def test_q_quits_and_leaves_the_terminal_as_it_was(
    redis_client: redis.Redis, redis_url: str, arguments: tuple[str, ...]
) -> None:
    put_example(redis_client)
    with terminal(redis_url, *arguments) as screen:
        screen.wait_for(b"ratelimit")
        assert ENTER in screen.written
        screen.press(b"q")
        screen.assert_left_clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_the_terminal_as_it_was(
    redis_client: redis.Redis, redis_url: str, number: signal.Signals
) -> None:
    put_example(redis_client)
    with terminal(redis_url, "top", "--interval", "60") as screen:
        screen.wait_for(b"ratelimit")
        screen.process.send_signal(number)
        screen.assert_left_clean()


def test_live_outage_is_shown_and_survived(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    with server.client() as client:
        put_example(client)
    with terminal(server.url, "top", "--interval", "0.2") as screen:
        screen.wait_for(b"ratelimit")
        server.pause()
        screen.wait_for(b"Redis is away since")
        server.resume()
        with server.client() as client:
            put_node(client, make_node(3))
        screen.wait_for(b"127.0.0.3")
        screen.press(b"q")
        screen.assert_left_clean()


def test_live_more_nodes_than_lines_scroll(redis_client: redis.Redis, redis_url: str) -> None:
    for machine_id in range(1, 41):
        put_node(redis_client, make_node(machine_id))
    with terminal(redis_url, "top", "--interval", "60", size=(12, 80)) as screen:
        screen.wait_for(b"of 41: arrow keys")
        assert b"127.0.0.40:" not in screen.written
        screen.press(b"\x1b[F")
        screen.wait_for(b"127.0.0.40:")
        screen.press(b"q")
        screen.assert_left_clean()


def test_live_top_in_pipe_prints_one_snapshot(
    redis_client: redis.Redis, redis_url: str, capsys: Capture
) -> None:
    put_example(redis_client)
    assert main(["top", "--redis-url", redis_url, "--interval", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"2 127\.0\.0\.2:5555 +up +0/3 +20 +0\.0 +- +-\n", out) is None
    assert re.search(r"2 127\.0\.0\.2:5555 +up +0/3 +20 +0\.0 +- +\d s\n", out)


def test_live_rows_have_backlog(redis_client: redis.Redis, redis_url: str) -> None:
    put_example(redis_client)
    with contextlib.closing(Context(Settings(redis_url=redis_url))) as context:
        reader = Reader(context)
        (cluster,) = rows(reader.read(), reader.read())
        assert [row.backlog for row in cluster.rows] == [0, 20]


def test_nodes_clusters_and_modules_that_come_and_go_are_seen(
    redis_client: redis.Redis, redis_url: str
) -> None:
    put_example(redis_client)
    with contextlib.closing(Context(Settings(redis_url=redis_url))) as context:
        reader = Reader(context)
        reader.read()
        put_node(redis_client, make_node(9, cluster_id=4))
        redis_client.hset(keys.modules(1), "dialog:1", 0)
        redis_client.srem(keys.nodes(*KEY), 2)
        redis_client.incr(keys.version(*KEY))
        found = reader.read()
        assert [list(view.nodes) for view in found.clusters] == [[1], [9]]
        assert [item.watch.token for item in found.last_seen] == ["dialog", "ratelimit"]
        redis_client.flushall()
        assert reader.read().clusters == ()


def test_live_without_scheduler_or_worker_shows_unchanged_states(
    redis_client: redis.Redis, redis_url: str
) -> None:
    put_example(redis_client)
    environment = {"CLUSTERER_REDIS_URL": redis_url}
    with contextlib.closing(Context(Settings(redis_url=redis_url))) as context:
        reader = Reader(context)
        assert reader.read().stalled == "no scheduler runs"
        with spawn(["-m", "scheduler"], environment):
            wait_until(lambda: "scheduler" not in reader.read().stalled)
            assert reader.read().stalled == "no maintenance worker runs"
            with spawn(["-m", "workers", "maintenance"], environment) as worker:
                wait_until(lambda: reader.read().stalled == "")
                (name,) = redis_client.smembers("rq:workers")
                worker.pause()
                redis_client.expire(name, KEY_TTL_S - SILENT_S)
                assert reader.read().stalled == "no maintenance worker runs"
                worker.kill()
            redis_client.delete(name)
            assert reader.read().stalled == "no maintenance worker runs"
        redis_client.delete(SCHEDULED)
        redis_client.zadd(SCHEDULED, {"clusterer-probe": time.time() - LATE_S})
        assert reader.read().stalled == "no scheduler runs"


def test_watch_in_a_pipe_prints_a_line_per_change(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    environment = {"CLUSTERER_REDIS_URL": server.url}
    store = NodeStore(Settings(redis_url=server.url))
    arguments = ["-m", "clusterer", "watch", "2", "--interval", "0.2"]
    with server.client() as client:
        put_example(client)
        with spawn(arguments, environment) as process:
            process.wait_for_output("node 2 (bin:127.0.0.2:5555): up, tries 0/3, backlog 20")
            store.command(KEY, 2, Event.SET_DOWN, Cause("operator root@sip1", "kernel update"))
            process.wait_for_output("up -> down, tries 0/3: set down by operator root@sip1: kernel")
            store.command(KEY, 1, Event.SET_DOWN, Cause("operator root@sip1"))
            client.hset(keys.counters(1), "1:bin", 900)
            process.wait_for_output("is behind: backlog 830")
            server.pause()
            process.wait_for_output("waiting for Redis: ")
            server.resume()
            process.wait_for_output("Redis is back")
            os.kill(process.pid, signal.SIGINT)
            assert process.wait() == 0
            assert "\x1b" not in process.output()
            assert "node 1 (" not in process.output()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["watch", "9"], "no cluster has a node 9"),
        (["watch", "2", "--cluster", "5"], "cluster 5 has no node 2"),
        (["watch", "2", "--redis-url", "redis://127.0.0.1:1"], "Redis at redis://127.0.0.1:1"),
        (["top", "--redis-url", "redis://127.0.0.1:1"], "Redis at redis://127.0.0.1:1"),
    ],
)
def test_live_impossible_view_is_error_of_one_line(
    redis_client: redis.Redis, redis_url: str, capsys: Capture, arguments: list[str], said: str
) -> None:
    put_example(redis_client)
    assert main([arguments[0], "--redis-url", redis_url, *arguments[1:]]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err
