"""What commands print in the docs is what they print: run again and compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterer.cli import main, output
from clusterer.cli.doctor import described
from clusterer.membership import State
from clusterer.services.doctor import redis_server
from clusterer.services.doctor.network import judged
from clusterer.services.listing import Listing, Traffic
from clusterer.store import ClusterKey, ClusterView
from tests.support import docs
from tests.support.seeding import make_node

DATABASE = "mysql+pymysql://opensips:***@127.0.0.1/opensips"
NODE_A = make_node(1, port=5566, description="Node A")
NODE_B = make_node(2, port=5566, description="Node B")

Capture = pytest.CaptureFixture[str]


def sessions(section: str) -> Iterator[tuple[list[str], str]]:
    """Yield each command of the section's console blocks, and what stands below it."""
    for block in docs.blocks(section, "console"):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            line, _, shown = part.partition("\n")
            yield shlex.split(line), shown


def test_the_commands_that_change_things_print_what_the_page_says(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CLUSTERER_REDIS_URL", redis_url)
    monkeypatch.setenv("CLUSTERER_DATA_DIR", str(tmp_path))
    seen = 0
    for name in ("init-db", "node-add", "node-edit", "node-remove", "set-status", "export"):
        for (_, *arguments), shown in sessions(docs.command_section(name)):
            main(arguments)
            captured = capsys.readouterr()
            real = f"sqlite:///{tmp_path}/clusterer.db"
            assert (captured.out + captured.err).replace(real, DATABASE) == shown, arguments
            seen += 1
        main(["reload"])
        capsys.readouterr()
    assert seen >= 10


def test_a_bad_setting_is_told_as_the_page_says(capsys: Capture) -> None:
    ((_, *arguments), shown), *_ = sessions(docs.section("parameters.md", "Where they come from"))
    assert main(arguments) == 1
    assert capsys.readouterr().err == shown


def test_the_list_looks_like_that(capsys: Capture) -> None:
    c = make_node(3, port=5566, description="Node C", state=State.DOWN)
    view = ClusterView.of(ClusterKey(1, "bin"), 1, [NODE_A, NODE_B, c])
    delivered = {"last_delivered": "95000"}
    traffic = (
        Traffic(1, 1, "bin", 2, 298, 0, 0, 0, backlog=0, oldest_s=None, **delivered),
        Traffic(1, 1, "bin", 3, 169, 0, 0, 0, backlog=129, oldest_s=5.2, **delivered),
    )
    output.show(Listing(100.0, 1, (view,), traffic))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    _, shown = next(sessions(docs.command_section("list")))
    assert lines == shown.splitlines()


def test_the_doctors_errors_are_worded_like_that() -> None:
    page = docs.command_section("doctor")
    answer = {"errors": {"1/2": "Connection refused"}, "tried": 2}
    (here,) = judged("nodes from here", "", answer, [NODE_B])
    whence = " from clusterer-delivery on sip1"
    (worker,) = judged("nodes from workers", whence, answer, [NODE_B])
    eviction = redis_server.eviction({"maxmemory_policy": "allkeys-lru", "maxmemory": 1})
    for finding in (here, worker, eviction):
        assert f"\n{described(finding)}\n" in page
