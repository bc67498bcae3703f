"""The options after the ? of redis_url: known or not, with which values, and what to write."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.connection import URL_QUERY_ARGUMENT_PARSERS

from clusterer.endpoint import open_client, public_url
from clusterer.endpoint.options import FLAG, truth
from clusterer.errors import SettingsError
from clusterer.settings import Settings
from tests.support.certificates import self_signed

REDIS, REDISS = "redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0"
WRITE_REDISS = "write rediss:// in place of redis:// for TLS"


def refusal(url: str) -> str:
    with pytest.raises(SettingsError, match=r"^redis_url ") as caught:
        open_client(Settings(redis_url=url))
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"{REDIS}?ssl=true", f"has the option ssl after the ?: {WRITE_REDISS}"),
        (f"{REDIS}?tls=1", f"has the option tls after the ?: {WRITE_REDISS}"),
        (f"{REDIS}?db=1&SSL-Mode=REQUIRED", f"has the option ssl_mode after the ?: {WRITE_REDISS}"),
        (f"{REDIS}?ssl_cert_reqs=none", f"the option ssl_cert_reqs after the ?: {WRITE_REDISS}"),
        (f"{REDISS}?ssl=true", "rediss:// means TLS: leave it out"),
        (f"{REDISS}?ssl_ca=/ca.pem", "has the option ssl_ca after the ?: it is ssl_ca_certs"),
        ("unix:///run/r.sock?ssl=true", "a unix socket has no TLS"),
        (f"{REDIS}?timeout=3", "has the option timeout after the ?: it is socket_timeout"),
        (f"{REDIS}?protocol=3", "clusterer sets it itself: leave it out"),
        (f"{REDIS}?nonsense=1", "has an unknown option 'nonsense' after the ?"),
        (f"{REDIS}?db=1&db=2", "has the option db twice"),
        (f"{REDIS}?db=-1", "has an option db after the ? that is not a whole number from 0"),
        (f"{REDIS}?db=٣", "has an option db after the ? that is not"),
        (f"{REDIS}?socket_timeout=nan", "option socket_timeout after the ? that is not a number"),
        (f"{REDIS}?socket_timeout=0", "not a number of seconds above 0"),
        (f"{REDIS}?socket_keepalive=maybe", "option socket_keepalive after the ? that is not true"),
        (f"{REDIS}?max_connections=0", "not a whole number from 1"),
        (f"{REDIS}?client_name=a%20b", "not a text without spaces"),
        (f"{REDISS}?ssl_cert_reqs=maybe", "that is not none or optional or required"),
        (f"{REDISS}?ssl_min_version=5", "that is not 771 or 772"),
        (f"{REDISS}?ssl_include_verify_flags=X", "not a list of the VERIFY_ flags"),
        (f"{REDISS}?ssl_ca_certs=/none.pem", "ssl_ca_certs cannot be used: No such file"),
        (f"{REDISS}?ssl_ca_certs=/etc/passwd", "ssl_ca_certs cannot be used: it has no cert"),
        (f"{REDISS}?ssl_ca_path=/none", "ssl_ca_path cannot be used: No such file"),
        (f"{REDISS}?ssl_ca_data=x", "ssl_ca_data cannot be used: it has no certificate"),
        (f"{REDISS}?ssl_ca_data=%C3%A9", "ssl_ca_data cannot be used: it has no certificate"),
        (f"{REDISS}?ssl_certfile=/none.pem", "ssl_certfile cannot be used: No such file"),
        (f"{REDISS}?ssl_certfile=/etc/passwd", "ssl_certfile cannot be used: certificate and key"),
        (f"{REDISS}?ssl_keyfile=/none.pem", "ssl_keyfile cannot be used: No such file"),
        (f"{REDISS}?ssl_ciphers=x", "ssl_ciphers cannot be used: OpenSSL knows no such cipher"),
    ],
)
def test_redis_option_that_cannot_be_used_is_named(url: str, message: str) -> None:
    assert message in refusal(url)


@pytest.mark.parametrize(
    "query",
    ["hunter2=1", "hunter", "hunter=", "password=a&hunter=b", "Hunter=1", "hunter==", "db=hunter"],
)
def test_redis_option_that_may_be_a_secret_is_not_shown(query: str) -> None:
    assert "unter" not in refusal(f"{REDIS}?{query}")


@pytest.mark.parametrize("base", [REDIS, REDISS, "unix:///run/r.sock"])
def test_redis_option_of_the_library_is_taken_or_refused(base: str) -> None:
    classes = (redis.connection.AbstractConnection, redis.Connection, redis.SSLConnection)
    names = {name for kind in classes for name in inspect.signature(kind).parameters}
    for name in (names | set(URL_QUERY_ARGUMENT_PARSERS)) - {"kwargs"}:
        for value in ("1", "true", "x", "none"):
            settings = Settings(redis_url=f"{base}?{name}={value}")
            assert public_url(settings)
            try:
                open_client(settings).close()
            except SettingsError as error:
                assert str(error).startswith("redis_url has ")  # noqa: PT017 - or no error


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("db=3&socket_timeout=2.5", {"db": 3, "socket_timeout": 2.5}),
        ("client_name=sip1&health_check_interval=5", {"client_name": "sip1"}),
        ("username=u&password=a%26b", {"username": "u", "password": "a&b"}),
        ("decode_responses=true", {"decode_responses": False}),
    ],
)
def test_redis_option_that_is_known_reaches_the_client(query: str, expected: Any) -> None:
    client = open_client(Settings(redis_url=f"redis://127.0.0.1:1?{query}"))
    kwargs = client.connection_pool.connection_kwargs
    assert {name: kwargs[name] for name in expected} == expected


def test_tls_files_that_fit_are_taken(tmp_path: Path) -> None:
    public, key = self_signed(tmp_path / "own", "127.0.0.1")
    open_client(
        Settings(
            redis_url=f"{REDISS}?ssl_ca_certs={public}&ssl_certfile={public}&ssl_keyfile={key}"
            f"&ssl_ca_path={public.parent}&ssl_ciphers=HIGH&ssl_min_version=771"
            "&ssl_include_verify_flags=VERIFY_X509_STRICT&ssl_check_hostname=no"
        )
    ).close()


@pytest.mark.parametrize("value", ["true", "YES", "1", "false", "No", "0"])
def test_flag_has_the_usual_words(value: str) -> None:
    assert FLAG.accepts(value)
    assert truth(value) == (value.lower() in {"true", "yes", "1"})
