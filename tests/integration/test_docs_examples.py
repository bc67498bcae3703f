"""The docs against the running system: their examples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clusterer import PROTO_BIN, Clusterer, Settings
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.periodic import probe, timeouts
from clusterer.services.table import reload as reload_service
from clusterer.settings import as_environment
from tests.support import docs
from tests.support.cluster import delivering, load, node
from tests.support.ports import free_port
from tests.support.processes import ChildProcess, spawn, wait_until
from tests.support.provisioning import provision, sql

README = docs.ROOT / "README.md"
API = docs.DOCS / "api.md"
MODULES = docs.DOCS / "api" / "modules.md"
SENDING = docs.DOCS / "api" / "sending.md"
GETTING_STARTED = docs.DOCS / "getting-started.md"


SETTINGS = {"linger": 0.5}


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


def test_docs_readme_example_runs(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = docs.examples(README)
    with program(example) as process:
        assert process.wait() == 0, process.output()
        assert process.output() == "100 Trying\n"


def test_docs_readme_second_example_runs(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = (b for b in docs.blocks(README.read_text(), "python") if "mymodule" in b)
    with program(example + "cluster.close()\n") as process:
        assert process.wait() == 0, process.output()
        assert process.output() == "nodes that get the packet: 1\n"


def test_docs_getting_started_example_runs(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = docs.examples(GETTING_STARTED)
    assert example.count("\n") <= 12
    with Clusterer(2, settings=settings) as instance:
        url = instance.get_nodes(1, PROTO_BIN)[0].url
    with program(example) as process:
        assert process.wait() == 0, process.output()
        assert process.output() == f"['{url}']\n1\n"


def test_docs_packets_example_prints_what_page_shows(program: Program) -> None:
    page = API.read_text(encoding="utf-8")
    (example,) = (block for block in docs.blocks(page, "python") if "pop_int(), fields" in block)
    with program(example) as process:
        assert process.wait() == 0, process.output()
        assert f"prints `{process.output().strip()}`" in page


@pytest.mark.slow
def test_docs_hello_module_sends_receives_and_times_out(
    settings: Settings, program: Program
) -> None:
    two_machines(settings)
    (example,) = docs.examples(MODULES, "hello module, a test runs this")
    context = Context(settings)
    with delivering(settings), program(example, "1") as first, contextlib.closing(context):
        with program(example, "2") as second:
            wait_until(lambda: _probed(context, "node 2 says hello", first))
            wait_until(lambda: _probed(context, "node 1 says hello", second))
            second.kill()

        def silent() -> bool:
            timeouts.run(context)
            return "node 2 timed out" in first.output()

        wait_until(silent, message="node 2 timed out")


def test_docs_aio_example_answers(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = docs.examples(SENDING, "aio, a test runs this")
    with (
        delivering(settings),
        contextlib.closing(Context(settings)) as context,
        program(example, "1") as first,
        program(example, "2") as second,
    ):
        wait_until(lambda: _probed(context, "answered node 2", first), 30)
        wait_until(lambda: _probed(context, "answered node 1", second), 30)


def test_docs_post_example_prints(settings: Settings, program: Program) -> None:
    two_machines(settings)
    (example,) = (b for b in docs.blocks(SENDING.read_text(), "python") if "asyncio" not in b)
    with program(example) as process:
        assert process.wait() == 0, process.output()
        assert process.output() == "nodes that get the packet: 1\n"


def _probed(context: Context, text: str, process: ChildProcess) -> bool:
    """Whether the process has printed ``text``; peers that started late are found again."""
    probe.run(context)
    return text in process.output()


# -- opensips --------------------------------------------------------------------------------------


def test_docs_table_and_row_are_accepted(settings: Settings, mariadb_url: str) -> None:
    (create,) = docs.blocks(docs.read("opensips.md"), "sql")
    mend, insert = docs.blocks(docs.read("opensips/joining.md"), "sql")
    context = Context(replace(settings, db_url=mariadb_url))
    provision(context, NewRow(1, 1, "bin:192.0.2.1:5566", failed_attempts=0))
    ((_, made),) = sql(context, "SHOW CREATE TABLE clusterer")
    assert str(made).rpartition(" ENGINE=")[0].split() == create.split()
    sql(context, mend)
    sql(context, insert)
    added = reload_service.run(context).added
    assert [node.url for node in added] == ["bin:192.0.2.1:5566", "bin:192.0.2.11:5566"]
    assert [node.failed_attempts for node in added] == [3, 3]
    context.close()
