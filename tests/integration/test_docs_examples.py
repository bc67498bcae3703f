"""The docs against the running system: examples, and what they show of Redis."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from clusterer import PROTO_BIN, Clusterer, Settings
from clusterer.ids import SERVER_TIMEOUT
from clusterer.provisioning import NewRow
from clusterer.services import Context, probe, set_status, timeouts
from clusterer.services import reload as reload_service
from clusterer.settings import as_environment
from tests.support import docs
from tests.support.cluster import delivering, load, node
from tests.support.ports import free_port
from tests.support.processes import ChildProcess, spawn, wait_until
from tests.support.provisioning import provision, sql

README = docs.ROOT / "README.md"
API = docs.DOCS / "api.md"
GETTING_STARTED = docs.DOCS / "getting-started.md"


@pytest.fixture
def settings(redis_client: redis.Redis, redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, linger=0.5)


@pytest.fixture
def program(tmp_path: Path, settings: Settings) -> Callable[..., object]:
    """Run a Python text of the docs as a user would: from a file, settings in the environment."""

    def run(text: str, *arguments: str) -> contextlib.AbstractContextManager[ChildProcess]:
        path = tmp_path / "program.py"
        path.write_text(text, encoding="utf-8")
        return spawn([path, *arguments], as_environment(settings))

    return run


Program = Callable[..., contextlib.AbstractContextManager[ChildProcess]]


def two_machines(settings: Settings) -> None:
    # Many attempts: a machine that starts slowly must not be disabled for half a minute.
    load(settings, [node(m, free_port(), failed_attempts=1000) for m in (1, 2)])


def test_the_readmes_example_runs(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = docs.examples(README)
    with program(example) as process:
        assert process.wait() == 0, process.output()
        assert process.output() == "100 Trying\n"


def test_the_readmes_second_example_runs(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = (b for b in docs.blocks(README.read_text(), "python") if "mymodule" in b)
    with program(example + "cluster.close()\n") as process:
        assert process.wait() == 0, process.output()
        assert process.output() == "1 nodes are up and will get it\n"


def test_the_ten_lines_of_getting_started_run(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = docs.examples(GETTING_STARTED)
    assert example.count("\n") <= 12
    url = Clusterer(2, settings=settings).get_nodes(1, PROTO_BIN)[0].url
    with program(example) as process:
        assert process.wait() == 0, process.output()
        assert process.output() == f"['{url}']\n1\n"


def test_the_example_of_packets_prints_what_the_page_says(program: Program) -> None:
    page = API.read_text(encoding="utf-8")
    (example,) = (block for block in docs.blocks(page, "python") if "pop_int(), fields" in block)
    with program(example) as process:
        assert process.wait() == 0, process.output()
        assert f"prints `{process.output().strip()}`" in page


@pytest.mark.slow
def test_the_hello_module_talks_both_ways_and_notices_silence(
    settings: Settings, program: Program
) -> None:
    two_machines(settings)
    (example,) = docs.examples(API, "hello module, a test runs this")
    context = Context(settings)
    with delivering(settings), program(example, "1") as first, contextlib.closing(context):
        with program(example, "2") as second:
            wait_until(lambda: _probed(context, "machine 2 says hello", first), 20)
            wait_until(lambda: _probed(context, "machine 1 says hello", second), 20)
            second.kill()

        def silent() -> bool:
            timeouts.run(context)
            return "machine 2 fell silent" in first.output()

        wait_until(silent, 20, "machine 2 fell silent")


def _probed(context: Context, text: str, process: ChildProcess) -> bool:
    """Whether the process has printed ``text``; peers that started late are found again."""
    probe.run(context)
    return text in process.output()


# -- opensips.md -----------------------------------------------------------------------------------


def test_the_table_and_the_row_in_the_docs_are_those_that_work(
    settings: Settings, mariadb_url: str
) -> None:
    page = docs.read("opensips.md")
    insert, create = docs.blocks(page, "sql")
    context = Context(replace(settings, db_url=mariadb_url))
    provision(context)
    ((_, made),) = sql(context, "SHOW CREATE TABLE clusterer")
    assert str(made).rpartition(" ENGINE=")[0].split() == create.split()
    sql(context, insert)
    assert [found.url for found in reload_service.run(context).added] == ["bin:192.0.2.11:5566"]
    context.close()


# -- redis-keys ------------------------------------------------------------------------------------


@pytest.fixture
def traffic(settings: Settings, tmp_path: Path, redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """A system that has done everything that leaves a key; yields a client of its Redis."""
    chosen = Settings(
        redis_url=settings.redis_url,
        data_dir=str(tmp_path),
        persistent_mode=True,
        backlog="replay",
        linger=0.2,
    )
    context = Context(chosen)
    provision(context, *(NewRow(1, m, f"bin:127.0.0.{m}:{free_port()}") for m in (1, 2, 3)))
    reload_service.run(context)
    with contextlib.ExitStack() as stack:
        stack.callback(context.close)
        first = stack.enter_context(_serving(chosen, 1))
        second = stack.enter_context(_serving(chosen, 2))
        notices: list[int] = []
        first.register_module(
            "ratelimit", PROTO_BIN, lambda *call: notices.append(call[0]), 1, 1, 1
        )
        got: list[int] = []
        second.register_module("ratelimit", PROTO_BIN, lambda *call: got.append(call[2]), 9, 1, 1)
        set_status.run(context, 1, 3, 0, "bin", by="test")
        first.send_to(1, PROTO_BIN, first.packet("ratelimit", 0).build())
        with delivering(chosen):
            wait_until(lambda: got, 10, "a packet of machine 1 at machine 2")
            wait_until(lambda: redis_client.exists("clusterer:waiting:clusterer-delivery"), 10)
        wait_until(lambda: _timed_out(context, notices), 10, "a timeout's notice")
        first.set_state(1, 2, 2, PROTO_BIN)
        first.send_to(1, PROTO_BIN, first.packet("ratelimit", 0).build())
        yield redis_client


def _timed_out(context: Context, notices: list[int]) -> bool:
    timeouts.run(context)
    return SERVER_TIMEOUT in notices


@contextlib.contextmanager
def _serving(settings: Settings, server_id: int) -> Iterator[Clusterer]:
    with Clusterer(server_id, settings=settings) as instance:
        thread = threading.Thread(target=instance.serve, name=f"serve {server_id}")
        thread.start()
        try:
            assert instance.listener.ready.wait(10)
            yield instance
        finally:
            instance.stop()
            thread.join(10)


def test_every_key_that_the_system_makes_is_documented_with_its_type(traffic: redis.Redis) -> None:
    patterns = docs.key_patterns()
    seen = set()
    for raw in traffic.keys("clusterer:*"):
        key = _text(raw)
        matches = [sample for sample, pattern in patterns.items() if pattern.fullmatch(key)]
        assert len(matches) == 1, f"{key}: {matches}"
        seen.add(matches[0])
        assert _documented_type(matches[0]) == _text(traffic.type(raw)), key
    # Leases and fences live for a second at most; tests of delivery see them, and those of
    # `clusterer tail` its mirror.
    assert set(patterns) - seen <= {
        "clusterer:lease:1",
        "clusterer:fence:1",
        "clusterer:tail:1",
    }


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def _documented_type(key: str) -> str:
    text = docs.key_section(key)
    kinds = {"Sorted set": "zset", "Set": "set", "Hash": "hash", "String": "string"}
    kinds["Stream"] = "stream"
    return next(kind for word, kind in kinds.items() if text.startswith(word))


def test_every_redis_cli_line_works_on_a_running_system(traffic: redis.Redis) -> None:
    lines = docs.redis_cli_lines()
    assert len(lines) == len(docs.sample_keys())
    for words in lines:
        traffic.execute_command(*words)  # type: ignore[no-untyped-call]  # a wrong type or syntax raises
