"""Redis with access rules and TLS: the user of docs/deployment.md has all rights needed."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from clusterer import Clusterer, Settings
from clusterer.settings import as_environment
from tests.support import docs
from tests.support.certificates import self_signed
from tests.support.cluster import load, node, node_for, numbers
from tests.support.ports import free_port
from tests.support.processes import (
    EVENTUALLY_S,
    child_environment,
    end_group,
    spawn,
    start,
    wait_until,
)
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer, redis_binary

PACKETS = 300
PROCESSES = (
    ("workers", "delivery"),
    ("workers", "maintenance"),
    ("workers", "database"),
    ("scheduler",),
)


def documented_commands() -> list[list[str]]:
    """Return the words of each command that the page has redis-cli do."""
    (block,) = docs.blocks(docs.section("deployment.md", "Redis"), "sh")
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    assert {line[0] for line in lines} == {"redis-cli"}
    return [line[1:] for line in lines]


def documented_user() -> list[str]:
    """Return the words of the ACL command that the page gives, after its name."""
    (words,) = [words for words in documented_commands() if words[:2] == ["ACL", "SETUSER"]]
    return words[2:]


def deliver(settings: Settings) -> None:
    """Run the processes, send, and see that each packet arrives once and in order."""
    with ExitStack() as stack:
        peer = stack.enter_context(BinReceiver())
        load(settings, [node(1), node_for(2, peer)])
        for words in PROCESSES:
            stack.enter_context(spawn(["-m", *words], as_environment(settings)))
        sender = stack.enter_context(Clusterer(1, settings=settings))
        for number in range(PACKETS):
            sender.send_to(1, "bin", sender.packet("test", 1).push_int(number).build())
        wait_until(lambda: len(numbers(peer)) >= PACKETS, message="all packets arrive")
        sender.set_state(1, 2, 0, "bin")
        with spawn(["-m", "clusterer", "doctor"], as_environment(settings)) as doctor:
            doctor.wait(EVENTUALLY_S)
            assert "backlog: no packet waits" in doctor.output()
        assert numbers(peer) == list(range(PACKETS))


@pytest.mark.slow
def test_redis_access_documented_user_has_all_rights(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path
) -> None:
    server = own_redis_server()
    with server.client() as admin:
        name, *rules = documented_user()
        admin.execute_command("ACL", "SETUSER", name, *rules)
        url = server.url.replace("redis://", f"redis://{name}:password@")
        deliver(Settings(redis_url=url, data_dir=str(tmp_path), server_id=1))
        assert refused(admin) == {"config|get"}, "doctor asks, and does without"


def refused(admin: redis.Redis) -> set[str]:
    """Return the commands that Redis refused to a user."""
    found: Any = admin.acl_log()
    return {entry["object"] for entry in found}


def test_redis_access_survives_restart_of_redis(tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "redis.conf"
    configuration.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n")

    def ask(*words: str) -> Any:
        with redis.Redis(port=port, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(*words)

    def is_ready() -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(ask("INFO", "persistence")["aof_rewrite_in_progress"] == 0)
        return False

    for commands in (documented_commands(), []):
        server = start([redis_binary(), str(configuration)], tmp_path / "log", child_environment())
        try:
            wait_until(is_ready, message="Redis answers")
            for words in commands:
                assert ask(*words) in {"OK", True}
            assert "sip" in ask("ACL", "USERS")
            assert "yes" in ask("CONFIG", "GET", "appendonly").values()
            wait_until(is_ready, message="the first append-only file is complete: Redis may end")
        finally:
            end_group(server)


@pytest.mark.slow
def test_redis_access_over_tls_works(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path
) -> None:
    certificate, key = self_signed(tmp_path / "own", "127.0.0.1")
    port = own_redis_server().offer_tls(certificate, key)
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    deliver(Settings(redis_url=url, data_dir=str(tmp_path), server_id=1))
