"""`clusterer init-db` and `reload` as an operator reads them: SQLite file, real Redis."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import redis

from clusterer.cli import main
from clusterer.store import keys
from tests.support.ports import free_port

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _environment(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERER_REDIS_URL", redis_url)
    monkeypatch.setenv("CLUSTERER_DATA_DIR", str(tmp_path))


def sql(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "clusterer.db")) as connection, connection:
        connection.execute(statement)


def test_init_db_says_what_it_made(capsys: Capture) -> None:
    assert main(["init-db", "--example"]) == 0
    out = capsys.readouterr().out
    assert "Table clusterer created in sqlite:" in out
    assert out.count("  added cluster 1, node") == 2
    assert main(["init-db", "--example"]) == 0
    out = capsys.readouterr().out
    assert "Table clusterer exists in sqlite:" in out
    assert "added" not in out


def test_reload_names_what_changed_and_what_was_rejected(
    redis_client: redis.Redis, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["init-db", "--example"]) == 0
    assert main(["reload"]) == 0
    out = capsys.readouterr().out
    assert "Loaded 2 of 2 rows" in out
    assert "  added    cluster 1, node 2: bin:127.0.0.2:5566" in out
    sql(tmp_path, "UPDATE clusterer SET duration = 7 WHERE machine_id = 1")
    sql(tmp_path, "INSERT INTO clusterer (cluster_id, machine_id, url) VALUES (1, 3, 'nonsense')")
    sql(tmp_path, "DELETE FROM clusterer WHERE machine_id = 2")
    assert main(["reload"]) == 0
    out = capsys.readouterr().out
    assert "0 added, 1 changed, 1 removed, 0 unchanged, 1 rejected" in out
    assert "  changed  cluster 1, node 1: bin:127.0.0.1:5566 (duration)" in out
    assert "  removed  cluster 1, node 2: bin:127.0.0.2:5566" in out
    assert "  rejected row 3, column 'url': " in out
    events = redis_client.xrevrange(keys.events(1), count=1)
    assert b"operator " in str(events).encode()


def test_reload_empty_table_is_reported(capsys: Capture) -> None:
    assert main(["init-db"]) == 0
    assert main(["reload"]) == 0
    assert "Note: table 'clusterer' is empty" in capsys.readouterr().out


def test_reload_missing_table_is_error_of_one_line(capsys: Capture) -> None:
    assert main(["reload"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "clusterer" in captured.err


def test_cli_database_unavailable_prints_one_line_with_advice(capsys: Capture) -> None:
    url = f"mysql://opensips:secret@127.0.0.1:{free_port()}/opensips"
    assert main(["reload", "--db-url", url]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(
        "clusterer: cannot read the table: database mysql+pymysql://opensips:***@"
    )
    assert "Connection refused" in err
    assert err.endswith("(start the database server, or correct host and port in db_url)\n")
