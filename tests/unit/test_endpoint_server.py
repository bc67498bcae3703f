"""Replies after which a client asks another server, and the connections closed then."""

from __future__ import annotations

import gc
import socket
import sys

import pytest
import redis

from clusterer.endpoint import primary as module
from clusterer.endpoint.primary import Server, cannot_serve, is_replica, server_of

SHA = "0" * 40


class Waiting:
    interrupted = 0

    def interrupt(self) -> None:
        self.interrupted += 1


@pytest.mark.parametrize(
    ("error", "replica", "unfit"),
    [
        (redis.ReadOnlyError("You can't write against a read only replica."), True, True),
        (redis.exceptions.MasterDownError("Link with MASTER is down"), True, True),
        (redis.ResponseError("READONLY You can't write against a read only replica."), True, True),
        (redis.ResponseError(f"Error running script f_{SHA}: 1: -READONLY No"), True, True),
        (redis.exceptions.ExecAbortError("discarded because of: READONLY You can't"), True, True),
        (redis.ResponseError("MASTERDOWN Link with MASTER is down"), True, True),
        (redis.ResponseError("UNBLOCKED force unblock from blocking operation"), True, True),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), False, True),
        (redis.ResponseError("LOADING Redis is loading the dataset in memory"), False, True),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), False, True),
        (redis.exceptions.ClusterDownError("The cluster is down"), False, True),
        (redis.ResponseError("CLUSTERDOWN Hash slot not served"), False, True),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), False, True),
        (redis.AuthenticationError("Authentication required."), False, True),
        (redis.ResponseError("NOAUTH Authentication required."), False, True),
        (redis.AuthenticationError("invalid username-password pair"), False, False),
        (redis.ResponseError("WRONGTYPE Operation against a key"), False, False),
        (redis.OutOfMemoryError("command not allowed when used memory > 9"), False, False),
        (redis.exceptions.NoPermissionError("this user has no permissions"), False, False),
        (redis.ConnectionError("Connection closed by server."), False, False),
    ],
)  # fmt: skip
def test_answer_of_each_kind_is_judged(error: Exception, replica: bool, unfit: bool) -> None:
    assert (is_replica(error), cannot_serve(error)) == (replica, unfit)


def test_demotion_interrupts_all_connections_but_the_teller() -> None:
    server, teller, other = Server(), Waiting(), Waiting()
    server.add(teller)
    server.add(other)
    server.leave(0, demoted=True, teller=teller)
    assert (server.generation, teller.interrupted, other.interrupted) == (1, 0, 1)


def test_full_disk_interrupts_nothing_that_is_under_way() -> None:
    server, other = Server(), Waiting()
    server.add(other)
    server.leave(0, demoted=False, teller=Waiting())
    assert (server.generation, other.interrupted) == (1, 0)


def test_server_is_left_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    server, teller = Server(), Waiting()
    for _ in range(3):
        server.leave(server.generation, demoted=False, teller=teller)
    assert server.generation == 1
    now += module.RENEW_S
    server.leave(0, demoted=False, teller=teller)
    assert server.generation == 1, "of an earlier generation: it is left already"
    server.leave(1, demoted=False, teller=teller)
    assert server.generation == 2


def test_connections_that_are_gone_are_forgotten() -> None:
    server, gone = Server(), Waiting()
    server.add(gone)
    del gone
    gc.collect()
    assert not server._connections


def test_connection_gone_runs_no_code_that_loses_ctrl_c() -> None:
    """Python ignores a KeyboardInterrupt that comes while Python code is a finalizer."""
    called: list[str] = []
    server, gone = Server(), Waiting()
    server.add(gone)
    sys.setprofile(lambda frame, event, _: called.append(f"{event} {frame.f_code.co_name}"))
    del gone
    sys.setprofile(None)
    assert not server._connections
    assert [event for event in called if event.startswith("call ")] == []


def test_address_that_failed_is_tried_last_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    found = [(2, 1, 6, "", ("127.0.0.1", 1)), (2, 1, 6, "", ("127.0.0.2", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    server, first, second = Server(), ("127.0.0.1", 1), ("127.0.0.2", 1)
    assert server.addresses("name", 1) == (first, second)
    server.avoid(first)
    assert server.addresses("name", 1) == (second, first)
    assert server.has_other(first)
    assert not server.has_other(second)
    now += module.AVOID_S
    assert server.addresses("name", 1) == (first, second)


def test_clients_of_one_name_share_their_server() -> None:
    options = {"host": "redis.example.net", "port": 6379, "db": 0}
    assert server_of(options) is server_of(options | {"db": 1})
    assert server_of(options) is not server_of(options | {"port": 6380})
