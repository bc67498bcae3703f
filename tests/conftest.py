"""Fixtures for all tests: private servers, fresh for each test that asks for them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from clusterer.listener import Listener
from clusterer.runtime.logs.handler import SummarisingHandler
from clusterer.services import Context
from clusterer.settings import Settings, as_environment
from tests.support.browser import chromium
from tests.support.listening import listener_of
from tests.support.mariadb_server import MariaDBServer
from tests.support.ports import free_port
from tests.support.probing import Hosts, hosts_on_loopback
from tests.support.provisioning import MakeContext, contexts
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_SERVER_FIXTURES = {
    "redis": {"redis_server", "own_redis_server", "shifted_redis"},
    "mariadb": {"mariadb_server", "shifted_mariadb"},
}

HOSTS_GROUPS = 3
"""How many tests of a cluster on several hosts run beside each other at most."""


# A busy machine is no fault of an example: no time limit for each, no warning of a slow one.
hypothesis_settings.register_profile(
    "shared", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("shared")


def pytest_configure() -> None:
    """Let processes of the tests heed the signals that ``nohup`` and background jobs ignore.

    And let all trust one certificate alone: an HTTP client, or a connection to MariaDB, takes 20 ms
    of CPU to read the hundreds of a system.
    """
    os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "authority.pem")
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            heed = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, heed)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long value by its length: the name of a test is a variable of its children."""
    if isinstance(val, str | bytes) and len(val) > 200:
        return f"{argname} of {len(val)}"
    return None


def _shares_fixture(item: pytest.Item) -> bool:
    """Tell whether a test shares a fixture with other tests of its module."""
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009
    return any(each[-1].scope == "module" for each in definitions)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the servers that its fixtures start, and with its group.

    One of the processes that pytest-xdist starts runs all tests of a group. Tests of a module that
    share a fixture are a group. Tests on several hosts are `HOSTS_GROUPS` groups. Slow tests come
    first, so that no process ends long after the others.
    """
    hosts_groups: dict[str, int] = {}
    for item in items:
        group = item.nodeid.partition("::")[0] if _shares_fixture(item) else None
        if item.get_closest_marker("hosts"):
            next_one = len(hosts_groups) % HOSTS_GROUPS
            group = f"hosts-{hosts_groups.setdefault(group or item.nodeid, next_one)}"
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
        for marker, fixtures in _SERVER_FIXTURES.items():
            if fixtures.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(marker)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run groups of tests apart: each process would make their shared fixture again."""
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError("pytest-xdist does not know the groups of this pytest")


@pytest.fixture(autouse=True)
def _no_outer_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep CLUSTERER_* variables of the developer's shell out of every test."""
    for name in [name for name in os.environ if name.startswith("CLUSTERER_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_logging_left() -> Iterator[None]:
    """Remove the log handlers of a command run in this process: their stream ends with the test."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in list(root.handlers):
        if isinstance(handler, SummarisingHandler):
            root.removeHandler(handler)
            handler.close()
            root.setLevel(level)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests. A test that stops or pauses a server uses `own_redis_server`."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Client (bytes) of an empty Redis."""
    with redis_server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_url(redis_server: RedisServer, redis_client: redis.Redis) -> str:
    """URL of the empty Redis that `redis_client` talks to."""
    return redis_server.url


@pytest.fixture
def settings(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Settings:
    """Settings with an empty Redis, a directory of the test's own, and the module's SETTINGS."""
    more = getattr(request.module, "SETTINGS", {})
    return Settings(redis_url=redis_url, data_dir=str(tmp_path / "data"), **more)


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    """The context of services, with `settings`."""
    with contextlib.closing(Context(settings)) as made:
        yield made


@pytest.fixture
def in_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give commands that run in this process `settings` by environment variables."""
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def hosts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Three hosts on loopback, without probers."""
    with hosts_on_loopback(settings, monkeypatch, 3, duration=1) as made:
        yield made


@pytest.fixture
def port(redis_client: redis.Redis) -> int:
    """Port of node 1; cluster 1 also has nodes 2 and 3, at 127.0.0.2 and 127.0.0.3."""
    found = free_port()
    for machine_id in (1, 2, 3):
        put_node(redis_client, make_node(machine_id, port=found))
    return found


@pytest.fixture
def listener(redis_url: str, port: int) -> Iterator[Listener]:
    """The listener of node 1, which serves nothing yet."""
    with listener_of(redis_url) as made:
        yield made


@pytest.fixture
def own_redis_server() -> Iterator[Callable[[], RedisServer]]:
    """Factory of Redis servers of this test alone, to be stopped, killed, paused at will."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(RedisServer())


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """One MariaDB for all tests; a test that pauses it finds it running again afterwards."""
    with MariaDBServer() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """URL (mysql://user:pw@host:port/database) of a fresh, empty database."""
    name = mariadb_server.create_database()
    yield mariadb_server.url(name)
    mariadb_server.resume()
    mariadb_server.drop_database(name)


@pytest.fixture
def make(
    request: pytest.FixtureRequest, redis_url: str, database_url: str
) -> Iterator[MakeContext]:
    """Factory of contexts with an empty database of each kind, and the module's SETTINGS."""
    more = getattr(request.module, "SETTINGS", {})
    with contexts(redis_url=redis_url, db_url=database_url, **more) as factory:
        yield factory


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One chromium for the tests of a module."""
    with chromium() as opened:
        yield opened


@pytest.fixture(params=["mariadb", "sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database of each kind in turn."""
    if request.param == "mariadb":
        return str(request.getfixturevalue("mariadb_url"))
    return f"sqlite:///{tmp_path / 'test.db'}"
