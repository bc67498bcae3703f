"""Advice after a real Redis refuses a connection or expects another kind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from clusterer.endpoint import remedy
from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from clusterer.store.client import connect, translated
from tests.support.certificates import self_signed
from tests.support.namespaces import run_alone
from tests.support.redis_server import RedisServer

ADDRESS = "192.0.2.9"
PROTECTED = """
from tests.integration.test_redis_advice import ADDRESS, complaint
from tests.support.redis_server import RedisServer
with RedisServer() as server:
    with server.client() as admin:
        admin.config_set("bind", f"127.0.0.1 {ADDRESS}")
    for query in ("0", "1"):
        for _ in range(5):
            print(complaint(f"redis://{ADDRESS}:{server.port}/{query}"))
"""


def complaint(url: str, *command: str) -> str:
    """Return what is said, and advised, about the Redis at ``url``; empty if it answers."""
    settings = Settings(redis_url=url)
    try:
        with connect(settings) as client, translated(settings, "ask"):
            client.execute_command(*(command or ("PING",)))
    except StateUnavailable as error:
        return f"{error}; {remedy(error)}"
    return ""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls") / "own", "127.0.0.1")


@pytest.fixture(scope="module")
def tls_port(server: RedisServer, files: tuple[Path, Path]) -> int:
    return server.offer_tls(*files)


@pytest.mark.parametrize("path", ["/0", "/1"])
def test_plain_client_of_a_tls_port_is_told_of_rediss(tls_port: int, path: str) -> None:
    text = complaint(f"redis://:secret@127.0.0.1:{tls_port}{path}")
    assert text.endswith("start Redis, or correct redis_url (a port for TLS needs rediss://)")
    assert "secret" not in text


def test_tls_client_of_a_plain_port_is_told_of_redis(server: RedisServer) -> None:
    text = complaint(f"rediss://127.0.0.1:{server.port}/0")
    assert text.endswith("start Redis, or correct redis_url (a port without TLS needs redis://)")


@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=required"])
def test_unknown_certificate_is_told_of_ssl_ca_certs(tls_port: int, query: str) -> None:
    text = complaint(f"rediss://127.0.0.1:{tls_port}/0{query}")
    assert "certificate verify failed" in text
    assert "let redis_url have the CA's file as ssl_ca_certs" in text


def test_certificate_of_another_name_is_told(tls_port: int, files: tuple[Path, Path]) -> None:
    text = complaint(f"rediss://localhost:{tls_port}/0?ssl_ca_certs={files[0]}")
    assert "Hostname mismatch" in text
    assert text.endswith("and a host that the certificate names")


def test_encryption_without_proof_is_possible(tls_port: int, files: tuple[Path, Path]) -> None:
    assert not complaint(f"rediss://127.0.0.1:{tls_port}/0?ssl_cert_reqs=none")
    assert not complaint(
        f"rediss://localhost:{tls_port}/0?ssl_ca_certs={files[0]}&ssl_check_hostname=false"
    )


def test_redis_that_wants_a_certificate_is_told(
    own_redis_server: Callable[[], RedisServer], files: tuple[Path, Path]
) -> None:
    certificate, key = files
    server = own_redis_server()
    url = f"rediss://127.0.0.1:{server.offer_tls(certificate, key)}/0?ssl_ca_certs={certificate}"
    with server.client() as admin:
        admin.config_set("tls-auth-clients", "yes")
    texts = [complaint(url) for _ in range(5)]
    for text in texts:
        assert "ssl_certfile and ssl_keyfile" in text or "rediss://" in text
    assert not complaint(f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}")


@pytest.mark.parametrize("path", ["/0", "/1"])
def test_redis_with_too_many_clients_is_told(
    own_redis_server: Callable[[], RedisServer], path: str
) -> None:
    server = own_redis_server()
    with ExitStack() as stack, server.client() as admin:
        admin.config_set("maxclients", 4)
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        admin.ping()
        for _ in range(5):
            text = complaint(server.url.replace("/0", path))
            assert ": max number of clients reached; raise maxclients in redis.conf" in text


def test_redis_in_protected_mode_is_told() -> None:
    lines = run_alone(["-c", PROTECTED], f"ip address add {ADDRESS}/24 dev lo").splitlines()
    assert len(lines) == 10
    for line in lines:
        assert ": DENIED Redis is running in protected mode; give Redis a password" in line


def test_server_that_is_no_redis_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = Settings(redis_url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        with connect(settings) as client:
            connection = client.connection_pool.make_connection()
            connection.connect()
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")
                with pytest.raises(redis.InvalidResponse) as caught:
                    connection.read_response()
            connection.disconnect()
    assert "does not speak Redis's protocol" in remedy(caught.value)


def test_redis_cluster_is_refused_with_the_reason() -> None:
    with RedisServer(options={"cluster-enabled": "yes"}) as server:
        text = complaint(server.url, "SET", "clusterer:x", "1")
    assert "Hash slot not served; " in text
    assert text.endswith(
        "use a server without cluster mode, or Sentinel: RQ's workers crash on Redis Cluster"
    )
