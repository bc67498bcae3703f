"""The tests' own servers and processes do what tests rely on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pymysql
import pytest
import redis

from clusterer.wire import PacketBuilder
from tests.support.mariadb_server import MariaDBServer
from tests.support.ports import free_port
from tests.support.processes import spawn, wait_until
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

FRAME = PacketBuilder("ratelimit", 0, 1).push_int(7).build().encode()


@pytest.mark.parametrize("_round", [1, 2])
def test_redis_client_fixture_is_empty(
    redis_client: redis.Redis, redis_url: str, _round: int
) -> None:
    assert redis_client.dbsize() == 0
    with redis.Redis.from_url(redis_url) as other:
        other.set("key", "value")
    assert redis_client.get("key") == b"value"


def test_own_redis_keeps_its_data_when_killed(own_redis_server: Callable[[], RedisServer]) -> None:
    server = own_redis_server()
    with server.client() as client:
        client.set("key", "value")
    server.kill()
    assert not server.running
    server.start()
    server.restart()
    with server.client() as client:
        assert client.get("key") == b"value"


def test_redis_server_paused_answers_no_client(own_redis_server: Callable[[], RedisServer]) -> None:
    server = own_redis_server()
    with server.client(timeout_s=0.2) as client:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert client.ping()


@pytest.mark.parametrize("_round", [1, 2])
def test_database_fixture_is_empty(mariadb_url: str, _round: int) -> None:
    url = urlsplit(mariadb_url)
    assert url.hostname is not None
    assert url.port is not None
    connection = pymysql.connect(
        host=url.hostname,
        port=url.port,
        user=url.username,
        password=url.password or "",
        database=url.path.lstrip("/"),
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        assert cursor.fetchall() == ()
        cursor.execute("CREATE TABLE clusterer (id INT)")


def test_paused_mariadb_is_resumed_for_the_next_test(
    mariadb_server: MariaDBServer, mariadb_url: str
) -> None:
    mariadb_server.pause()


def test_ports_are_not_given_twice() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50


def test_spawn_block_end_ends_process_and_shows_output() -> None:
    code = "import sys, time; print('ready', flush=True); time.sleep(60)"
    with spawn(["-c", code]) as process:
        process.wait_for_output("ready")
        process.pause()
    assert process.returncode == -signal.SIGTERM


def test_settings_of_the_shell_do_not_reach_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERER_SERVER_ID", "9")
    code = "import os; print([k + '=' + v for k, v in os.environ.items() if 'CLUSTERER' in k])"
    with spawn(["-c", code], {"CLUSTERER_LINGER": "1"}) as process:
        assert process.wait() == 0
        assert process.output() == "['CLUSTERER_LINGER=1']\n"


def test_failed_block_shows_output(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError), spawn(["-c", "print('the reason')"]) as process:
        process.wait_for_output("never")
    assert "the reason" in capsys.readouterr().err


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    parent_code = (
        "import time; from tests.support.processes import spawn\n"
        "with spawn(['-c', 'import time; time.sleep(60)']) as child:\n"
        "    print(child.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", parent_code]
    env = os.environ | {"TMPDIR": str(tmp_path)}  # no process is left to clean up
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: not _runs(child_pid), message="the child is gone")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_wait_until_gives_up_with_its_message() -> None:
    with pytest.raises(TimeoutError, match="the moon"):
        wait_until(lambda: False, 0.02, "the moon")


def test_receiver_counts_whole_frames_however_cut() -> None:
    with BinReceiver("127.0.0.2") as receiver, socket.create_connection(receiver.address) as peer:
        peer.sendall(FRAME + FRAME[:10])
        assert len(receiver.wait_for_frames(1)) == 1
        wait_until(lambda: receiver.connections[0].has_partial_frame)
        peer.sendall(FRAME[10:])
        assert receiver.wait_for_frames(2)[1].fields().pop_int() == 7
        assert receiver.connections[0].data == FRAME * 2


def test_paused_receiver_reads_nothing() -> None:
    with BinReceiver() as receiver, socket.create_connection(receiver.address) as peer:
        receiver.wait_for_connections()
        receiver.pause()
        peer.sendall(FRAME)
        with pytest.raises(TimeoutError, match="0 of 1 frames"):
            receiver.wait_for_frames(1, timeout_s=0.2)
        receiver.resume()
        receiver.wait_for_frames(1)


def test_receiver_notes_garbage() -> None:
    with BinReceiver() as receiver, socket.create_connection(receiver.address) as peer:
        peer.sendall(b"not BIN at all......")
        wait_until(lambda: receiver.connections and receiver.connections[0].error)


def test_receiver_closes_resets_and_refuses() -> None:
    with BinReceiver() as receiver:
        with socket.create_connection(receiver.address) as peer:
            receiver.wait_for_connections(1)
            receiver.close_connections()
            assert peer.recv(1) == b""
        with socket.create_connection(receiver.address) as peer:
            receiver.wait_for_connections(2)
            receiver.reset_connections()
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        receiver.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(receiver.address)
        receiver.start()
        with socket.create_connection(receiver.address):
            receiver.wait_for_connections(3)
        wait_until(lambda: receiver.connections[2].ended == "peer closed")
