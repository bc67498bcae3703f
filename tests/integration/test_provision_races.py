"""Several at once, and ends in the middle: table and Redis agree, or the command says why not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterer.errors import InvalidArgument, ProvisioningError, StateUnavailable, UnknownNode
from clusterer.membership import State
from clusterer.provisioning import replacing
from clusterer.provisioning.files import parse
from clusterer.services import Context, provision
from clusterer.services.admin import set_status
from clusterer.services.periodic import sync
from clusterer.services.provision import writing
from clusterer.services.table import reload
from tests.support.mariadb_server import MariaDBServer
from tests.support.processes import EVENTUALLY_S, child_environment
from tests.support.provisioning import KEY, NODE_A, NODE_B, MakeContext, contexts, sql
from tests.support.provisioning import provision as fill

BY = "operator root@sip1"
LINE = {"cluster_id": 1, "machine_id": 3, "url": "bin:127.0.0.3:1"}


@pytest.fixture
def context(make: MakeContext) -> Context:
    """Two nodes, loaded."""
    context = make()
    fill(context, NODE_A, NODE_B)
    reload.run(context)
    return context


def first(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], *, times: int = 1
) -> list[object]:
    """Have another operator ``act`` between the command's read of the table and its write."""
    original, done = writing._written, list[object]()

    def written(*arguments: Any) -> bool:
        if len(done) < times:
            done.append(None)
            act()
        return original(*arguments)

    monkeypatch.setattr(writing, "_written", written)
    return done


def agree(context: Context) -> bool:
    found = reload.preview(context)
    return not (found.added or found.changed or found.removed or found.rejected)


def test_provision_two_edits_of_one_row_both_count(
    context: Context, make: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make()
    first(monkeypatch, lambda: provision.edit(other, (1, 2), {"duration": 9}, by="other"))
    changes = provision.edit(context, (1, 2), {"description": "mine"}, by=BY)
    assert changes.changed[0].columns == ("description",)
    node = context.nodes.view(KEY).nodes[2]
    assert (node.duration, node.description, agree(context)) == (9, "mine", True)


def test_provision_edit_of_removed_row_raises(
    context: Context, make: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make()
    first(monkeypatch, lambda: provision.remove(other, (1, 2), by="other"))
    with pytest.raises(UnknownNode, match="no node 2 in cluster 1"):
        provision.edit(context, (1, 2), {"duration": 9}, by=BY)
    assert agree(context)


@pytest.mark.parametrize("unique", [True, False])
def test_provision_same_machine_is_added_once(
    context: Context, make: MakeContext, monkeypatch: pytest.MonkeyPatch, unique: bool
) -> None:
    if not unique and context.settings.db_url.startswith("mysql"):
        sql(context, "ALTER TABLE clusterer DROP INDEX cluster_id")
    other = make()
    first(monkeypatch, lambda: provision.add(other, LINE, by="other"))
    with pytest.raises(InvalidArgument, match="has a node 3 already, in row 3"):
        provision.add(context, LINE | {"url": "bin:127.0.0.4:1"}, by=BY)
    assert agree(context)


def test_provision_import_plans_again_after_change(
    context: Context, make: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make()
    first(monkeypatch, lambda: provision.edit(other, (1, 2), {"duration": 9}, by="other"))
    rows = parse("cluster_id,machine_id,url\n1,2,bin:127.0.0.2:7\n1,3,bin:127.0.0.3:1\n")
    changes = provision.import_rows(context, rows, by=BY)
    assert (len(changes.added), changes.changed[0].columns) == (1, ("url",))
    assert (context.nodes.view(KEY).nodes[2].duration, agree(context)) == (9, True)


def test_provision_endless_changes_raise(
    context: Context, make: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, before = make(), context.nodes.view(KEY)
    statement = "UPDATE clusterer SET last_attempt = last_attempt + 1 WHERE machine_id = 2"
    done = first(monkeypatch, lambda: sql(other, statement), times=100)
    with pytest.raises(ProvisioningError, match="nothing is done: another program changed"):
        provision.edit(context, (1, 2), {"duration": 9}, by=BY)
    assert len(done) == writing._ATTEMPTS
    assert context.nodes.view(KEY) == before
    assert sql(context, "SELECT duration FROM clusterer WHERE machine_id = 2") == [(30,)]


def test_provision_named_state_wins_over_unwritten_state(
    make: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, other = make(persistent_mode=True), make(persistent_mode=True)
    fill(context, NODE_A, NODE_B)
    reload.run(context)
    set_status.run(context, 1, 2, 0, "bin", by="other")
    first(monkeypatch, lambda: sync.run(other))
    provision.edit(context, (1, 2), {"state": 1}, by=BY)
    sync.run(context)
    assert context.nodes.view(KEY).nodes[2].state is State.UP
    assert sql(context, "SELECT state FROM clusterer WHERE machine_id = 2") == [(1,)]


# -- a command that ends in the middle ---------------------------------------------------------

_DIES = """
import os, signal, sys
from clusterer.services import provision
provision.apply = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
from clusterer.cli import main
sys.exit(main(sys.argv[1:]))
"""


def die(context: Context, *words: str) -> None:
    """Run a command that is killed when the table is written and Redis is not yet."""
    env = {
        "CLUSTERER_DB_URL": context.settings.db_url,
        "CLUSTERER_REDIS_URL": context.settings.redis_url,
    }
    command = [sys.executable, "-c", _DIES, *words]
    ended = subprocess.run(command, env=child_environment(env), timeout=EVENTUALLY_S, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_provision_after_killed_command_reports_or_repairs(
    context: Context, tmp_path: Path
) -> None:
    die(context, "node-add", "1", "3", "bin:127.0.0.3:1")
    with pytest.raises(InvalidArgument, match="the row is not in effect: `clusterer reload`"):
        provision.add(context, LINE, by=BY)
    reload.run(context)
    die(context, "node-remove", "1", "3")
    with pytest.raises(UnknownNode, match="Redis still has the node: run `clusterer reload`"):
        provision.remove(context, (1, 3), by=BY)
    reload.run(context)
    die(context, "node-edit", "1", "2", "--duration", "9")
    assert provision.edit(context, (1, 2), {"duration": 9}, by=BY).in_effect_again
    assert agree(context)
    file = tmp_path / "nodes.csv"
    file.write_text("cluster_id,machine_id,url\n1,1,bin:127.0.0.1:5566\n", encoding="utf-8")
    die(context, "import", "--replace", str(file))
    provision.import_rows(context, parse(file.read_text(encoding="utf-8")), by=BY, replace=True)
    assert agree(context)
    assert list(context.nodes.view(KEY).nodes) == [1]


def test_provision_redis_lost_midway_is_reported(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StateUnavailable("Redis is away")

    monkeypatch.setattr(reload, "apply_rows", away)
    with pytest.raises(StateUnavailable, match="the table is changed, but not in effect yet"):
        provision.edit(context, (1, 2), {"duration": 9}, by=BY)


def test_provision_unanswered_commit_is_reported(
    mariadb_server: MariaDBServer, mariadb_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contexts(db_url=mariadb_url, redis_url=redis_url) as make:
        context = make()
        fill(context, NODE_A, NODE_B)
        reload.run(context)
        original = replacing._commit

        def frozen(transaction: Any) -> None:
            mariadb_server.pause()
            original(transaction)

        monkeypatch.setattr(replacing, "_commit", frozen)
        try:
            with pytest.raises(ProvisioningError, match="the table may have the change"):
                provision.edit(context, (1, 2), {"duration": 9}, by=BY)
        finally:
            mariadb_server.resume()


def test_provision_row_altered_by_database_is_reported(context: Context) -> None:
    if context.settings.db_url.startswith("mysql"):
        body = "BEFORE INSERT ON clusterer FOR EACH ROW SET NEW.url = 'x'"
    else:
        body = "AFTER INSERT ON clusterer BEGIN UPDATE clusterer SET url = 'x' WHERE id = 3; END"
    sql(context, f"CREATE TRIGGER spoil {body}")
    with pytest.raises(ProvisioningError, match="the table is changed, but a changed row is"):
        provision.add(context, LINE, by=BY)
