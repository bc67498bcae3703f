"""sentinels://: TLS to the sentinels and to the master that they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from clusterer.endpoint import error_at, open_client, remedy
from clusterer.settings import Settings
from tests.support.certificates import self_signed
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.sentinel import PATIENT_S, SERVICE, Sentinel

ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls") / "own", ADDRESS)


@pytest.fixture(scope="module")
def place(certificate: tuple[Path, Path]) -> Iterator[str]:
    """``host:port/service`` of one sentinel that watches one server, both with TLS only."""
    files = {
        "tls-cert-file": str(certificate[0]),
        "tls-key-file": str(certificate[1]),
        "tls-ca-cert-file": str(certificate[0]),
        "tls-auth-clients": "no",
    }
    with RedisServer() as server:
        port = server.offer_tls(*certificate)
        tls_port = free_port()
        config = "".join(f"{name} {value}\n" for name, value in files.items())
        config += f"tls-port {tls_port}\ntls-replication yes\n"
        config += f"sentinel monitor {SERVICE} {ADDRESS} {port} 1\n"
        sentinel = Sentinel(ADDRESS, free_port(), config=config)
        try:
            sentinel.start()
            yield f"{ADDRESS}:{tls_port}/{SERVICE}"
        finally:
            sentinel.close()


def complaint(url: str) -> str:
    settings = Settings(redis_url=url)
    try:
        with open_client(settings) as client:
            client.set("clusterer:x", 1)
    except redis.RedisError as error:
        return f"{error_at(settings, error)}; {remedy(error)}"
    return ""


def test_sentinels_over_tls_name_the_master(place: str, certificate: tuple[Path, Path]) -> None:
    url = f"sentinels://{place}?ssl_ca_certs={certificate[0]}"
    wait_until(lambda: not complaint(url), PATIENT_S, "the master is written")


def test_sentinels_of_unknown_certificate_are_refused(place: str) -> None:
    text = complaint(f"sentinels://{place}")
    assert "No sentinel answers" in text
    assert "certificate verify failed" in text


def test_sentinel_url_of_a_tls_port_is_refused(place: str) -> None:
    text = complaint(f"sentinel://{place}")
    assert f"Redis at sentinel://{place}: No sentinel answers" in text
    assert text.endswith("(a port for TLS needs sentinels://)")
