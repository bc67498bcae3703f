"""The table that init-db makes, in MariaDB and in SQLite."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from clusterer.errors import ProvisioningError, SettingsError
from clusterer.provisioning.table import NewRow, read_rows
from clusterer.services import Context, provision
from clusterer.services.table import init_db
from clusterer.settings import Settings
from tests.support.certificates import self_signed
from tests.support.mariadb_server import MariaDBServer
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, child_environment
from tests.support.provisioning import NODE_A, NODE_B, sql

RENAMED = {
    "db_table": "order",
    "cluster_id_col": "group",
    "machine_id_col": "machine id",
    "clusterer_id_col": "100%",
    "state_col": "State",
    "url_col": "a:b",
    "description_col": "über `x` \"y\" 'z'",
    "failed_attempts_col": "select",
    "last_attempt_col": "(when)",
    "duration_col": "key",
    "no_tries_col": "tries?",
}


@pytest.fixture
def make(database_url: str) -> Callable[..., Context]:
    return lambda **names: Context(Settings(db_url=database_url, **names))


@pytest.mark.parametrize("names", [{}, RENAMED], ids=["usual names", "strange names"])
def test_table_is_made_once_with_any_names(
    make: Callable[..., Context], names: dict[str, str]
) -> None:
    context = make(**names)
    table = names.get("db_table", "clusterer")
    first = init_db.run(context, example=True)
    assert (first.table, first.table_created, first.version_added) == (table, True, True)
    assert first.rows_added == init_db.EXAMPLE
    again = init_db.run(context, example=True)
    assert (again.table_created, again.version_added, again.rows_added) == (False, False, ())
    assert sql(context, "SELECT table_name, table_version FROM version") == [(table, 1)]
    with context.database.connection("read") as connection:
        rows = read_rows(connection, context.database.schema)
    assert [(row["machine_id"], row["url"], row["state"]) for row in rows] == [
        (1, "bin:127.0.0.1:5566", 1),
        (2, "bin:127.0.0.2:5566", 1),
    ]
    assert [(row["failed_attempts"], row["duration"], row["no_tries"]) for row in rows] == [
        (3, 30, 0)
    ] * 2


def test_columns_have_the_types_that_opensips_insists_on(
    mariadb_server: MariaDBServer, mariadb_url: str
) -> None:
    init_db.run(Context(Settings(db_url=mariadb_url)))
    database = mariadb_url.rpartition("/")[2]

    def described(table: str) -> list[tuple[Any, ...]]:
        found = mariadb_server.execute(f"SHOW COLUMNS FROM {table}", database=database)
        return list(found)

    assert described("clusterer") == [
        ("id", "int(11)", "NO", "PRI", None, "auto_increment"),
        ("cluster_id", "int(11)", "NO", "MUL", None, ""),
        ("machine_id", "int(11)", "NO", "", None, ""),
        ("url", "char(64)", "NO", "", None, ""),
        ("state", "int(1)", "NO", "", "1", ""),
        ("last_attempt", "bigint(20) unsigned", "NO", "", "0", ""),
        ("failed_attempts", "int(11)", "NO", "", "3", ""),
        ("no_tries", "int(11)", "NO", "", "0", ""),
        ("duration", "int(11)", "NO", "", "30", ""),
        ("description", "char(64)", "YES", "", None, ""),
    ]
    indexes = mariadb_server.execute("SHOW INDEX FROM clusterer", database=database)
    unique = [(row[4], row[1]) for row in indexes if row[2] != "PRIMARY"]
    assert unique == [("cluster_id", 0), ("machine_id", 0)]
    assert described("version") == [
        ("table_name", "char(32)", "NO", "PRI", None, ""),
        ("table_version", "int(10) unsigned", "NO", "", "0", ""),
    ]


def test_init_db_other_version_is_refused(make: Callable[..., Context]) -> None:
    context = make()
    init_db.run(context)
    sql(context, "UPDATE version SET table_version = 2")
    for call in (init_db.run, lambda c: init_db.add(c, [NODE_A])):
        with pytest.raises(ProvisioningError, match=r"'clusterer' has version 2 .* version 1"):
            call(context)
    assert sql(context, "SELECT * FROM clusterer") == []


def test_init_db_other_version_makes_no_table(make: Callable[..., Context]) -> None:
    context = make()
    sql(context, "CREATE TABLE version (table_name CHAR(32), table_version INT)")
    sql(context, "INSERT INTO version VALUES ('clusterer', 3)")
    with pytest.raises(ProvisioningError, match="version 3"):
        init_db.run(context)
    with pytest.raises(ProvisioningError, match="there is no table 'clusterer'"):
        init_db.add(context, [NODE_A])


def test_missing_columns_are_named(make: Callable[..., Context]) -> None:
    context = make(no_tries_col="tries")
    sql(context, "CREATE TABLE clusterer (ID INT, cluster_id INT, machine_id INT, url CHAR(64))")
    with pytest.raises(ProvisioningError) as caught:
        init_db.run(context)
    assert str(caught.value) == (
        "table 'clusterer' has no column 'state' (state_col), 'last_attempt' (last_attempt_col), "
        "'failed_attempts' (failed_attempts_col), 'tries' (no_tries_col), "
        "'duration' (duration_col), 'description' (description_col): set what stands in "
        "parentheses to the column's real name, or db_table to another table"
    )


def test_table_made_by_hand_is_registered(make: Callable[..., Context]) -> None:
    context = make()
    init_db.run(context)
    sql(context, "DROP TABLE version")
    assert init_db.add(context, [NODE_A]) == (NODE_A,)
    report = init_db.run(context)
    assert (report.table_created, report.version_added) == (False, True)


def test_init_db_adds_missing_machines_only(make: Callable[..., Context]) -> None:
    context = make()
    init_db.run(context)
    assert init_db.add(context, [NODE_A]) == (NODE_A,)
    other = NewRow(1, 1, "bin:10.0.0.1:1")
    assert init_db.add(context, [other, NODE_B]) == (NODE_B,)
    assert sql(context, "SELECT url FROM clusterer ORDER BY id") == [(NODE_A.url,), (NODE_B.url,)]


def test_init_db_many_at_once_succeed(make: Callable[..., Context]) -> None:
    together = Barrier(6)

    def one() -> init_db.InitReport:
        context = make()
        together.wait(EVENTUALLY_S)
        return init_db.run(context)

    with ThreadPoolExecutor(6) as pool:
        for job in [pool.submit(one) for _ in range(6)]:
            job.result()
    assert sql(make(), "SELECT table_name, table_version FROM version") == [("clusterer", 1)]


def test_init_db_without_configuration_makes_private_file(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    report = init_db.run(Context(Settings(data_dir=str(directory))), example=True)
    assert report.database == f"sqlite:///{directory}/clusterer.db"
    assert (directory / "clusterer.db").exists()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"db_table": "Version"}, "db_table must not be 'version'"),
        ({"db_table": "x" * 33}, "longer than 32 characters"),
        ({"url_col": "State"}, "url_col and state_col name the same column 'state'"),
    ],
)
def test_names_that_cannot_be_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        init_db.run(Context(Settings(**names)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:secret@127.0.0.1:{port}/d", r"mysql\+pymysql://u:\*\*\*@127.0.0.1:\d+/d: .*"),
        ("mysql://u:secret@h.invalid/d", "MySQL server on 'h.invalid'.*start the database server"),
        ("mysql://u:secret@127.0.0.1/d?ssl_ca=/none.pem", "No such file|Can't connect"),
        ("sqlite:////none/x.db", r"unable to open database file \(there is no directory /none\)"),
        ("sqlite:////tmp", r"unable to open database file \(it is a directory\)"),
        ("postgresql+psycopg://u:secret@h/d", "psycopg"),
    ],
)
def test_unusable_database_is_one_clear_error(url: str, message: str) -> None:
    context = Context(Settings(db_url=url.format(port=free_port())))
    began = time.monotonic()
    with pytest.raises(ProvisioningError, match=message) as caught:
        init_db.run(context)
    assert time.monotonic() - began < 5 + LATE_S
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "why"),
    [(0o444, "readonly database (this user may not write it)"), (0, "(this user may not read it)")],
)
def test_init_db_file_of_other_user_is_reported(mode: int, why: str, tmp_path: Path) -> None:
    """In a process of its own, without root's right to read and write everything."""
    path = tmp_path / "nodes.db"
    init_db.run(Context(Settings(db_url=f"sqlite:///{path}")))
    path.chmod(mode)
    command = [sys.executable, "-m", "clusterer", "init-db", "--example", "--db-url"]
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*unprivileged, *command, f"sqlite:///{path}"],
        capture_output=True,
        text=True,
        env=child_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{why}; `clusterer doctor` shows the remedy\n" in done.stderr


def test_export_directory_of_other_user_is_reported(tmp_path: Path) -> None:
    barred = tmp_path / "barred"
    barred.mkdir(mode=0)
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*unprivileged, sys.executable, "-m", "clusterer", "export", "--data-dir", str(barred)],
        capture_output=True,
        text=True,
        env=child_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"(this user may not enter {barred}); `clusterer doctor` shows" in done.stderr


def test_database_read_makes_no_file(tmp_path: Path) -> None:
    for settings in (
        Settings(data_dir=str(tmp_path / "none")),
        Settings(db_url=f"sqlite:///{tmp_path}/none.db"),
    ):
        context = Context(settings)
        with pytest.raises(ProvisioningError, match="create it with `clusterer init-db`"):
            provision.export(context)
        with pytest.raises(ProvisioningError, match="create it with `clusterer init-db`"):
            init_db.add(context, [NODE_A])
    assert list(tmp_path.iterdir()) == []


def test_wrong_password_is_not_shown(mariadb_url: str) -> None:
    url = mariadb_url.replace("private", "sec%72et")
    with pytest.raises(ProvisioningError, match="Access denied") as caught:
        init_db.run(Context(Settings(db_url=url)))
    assert "sec%72et" not in str(caught.value)
    assert "a % stands for itself" in str(caught.value)


def test_frozen_server_is_given_up(mariadb_server: MariaDBServer, mariadb_url: str) -> None:
    context = Context(Settings(db_url=mariadb_url))
    init_db.run(context)
    mariadb_server.pause()
    began = time.monotonic()
    with pytest.raises(ProvisioningError, match="cannot add nodes: database"):
        init_db.add(context, [NODE_A])
    assert time.monotonic() - began < 5 + LATE_S
    mariadb_server.resume()
    assert init_db.add(context, [NODE_A]) == (NODE_A,)


def test_locked_row_is_given_up(mariadb_server: MariaDBServer, mariadb_url: str) -> None:
    context = Context(Settings(db_url=mariadb_url))
    init_db.run(context, example=True)
    with context.database.connection("lock") as other, other.begin():
        other.exec_driver_sql("UPDATE clusterer SET state = 0")
        with pytest.raises(ProvisioningError, match="Lock wait timeout"):
            sql(context, "UPDATE clusterer SET state = 2")


def test_locked_table_is_told_as_one(mariadb_server: MariaDBServer, mariadb_url: str) -> None:
    context = Context(Settings(db_url=mariadb_url))
    init_db.run(context, example=True)
    with context.database.connection("lock") as other:
        other.exec_driver_sql("LOCK TABLES clusterer WRITE")
        with pytest.raises(ProvisioningError, match="Lock wait timeout"):
            init_db.add(context, [NODE_A])


def test_database_value_too_long_is_refused_by_lenient_server(
    mariadb_server: MariaDBServer, mariadb_url: str
) -> None:
    database = mariadb_url.rpartition("/")[2]
    mariadb_server.execute(f"ALTER DATABASE {database} CHARACTER SET latin1")
    mode = mariadb_server.execute("SELECT @@GLOBAL.sql_mode")[0][0]
    mariadb_server.execute("SET GLOBAL sql_mode = ''")
    try:
        context = Context(Settings(db_url=mariadb_url))
        init_db.run(context)
        with pytest.raises(ProvisioningError, match="Incorrect string value"):
            init_db.add(context, [NewRow(1, 1, "bin:127.0.0.1:1", description="\u03a9")])
        assert sql(context, "SELECT * FROM clusterer") == []
    finally:
        mariadb_server.execute(f"SET GLOBAL sql_mode = '{mode}'")


def test_database_cell_not_utf8_does_not_hide_table(tmp_path: Path) -> None:
    context = Context(Settings(db_url=f"sqlite:///{tmp_path / 'test.db'}"))
    init_db.run(context, example=True)
    sql(context, "UPDATE clusterer SET description = CAST(x'ff41' AS TEXT) WHERE id = 1")
    with context.database.connection("read") as connection:
        found = read_rows(connection, context.database.schema)
    assert [row["description"] for row in found] == ["\ufffdA", "Node B"]


def test_unix_socket(mariadb_server: MariaDBServer, mariadb_url: str) -> None:
    path = mariadb_server.directory / "socket"
    database = mariadb_url.rpartition("/")[2]
    url = f"mysql://clusterer:private@localhost/{database}?unix_socket={path}"
    assert init_db.run(Context(Settings(db_url=url))).table_created


def test_init_db_server_without_tls_is_refused_on_demand(mariadb_url: str, tmp_path: Path) -> None:
    authority, _ = self_signed(tmp_path / "ca", "127.0.0.1")
    context = Context(Settings(db_url=f"{mariadb_url}?ssl_ca={authority}"))
    with pytest.raises(ProvisioningError, match=r"SSL is required|certificate verify failed"):
        init_db.run(context)


class _TlsServer(MariaDBServer):
    """MariaDB that offers encryption with the certificate in ``tls``."""

    tls: Path

    def _common_options(self, data: Path) -> list[str]:  # type: ignore[override]
        files = [f"--ssl-cert={self.tls / 'cert.pem'}", f"--ssl-key={self.tls / 'key.pem'}"]
        return [*super()._common_options(data), *files]


@pytest.mark.mariadb
def test_database_server_without_proof_gets_no_password(tmp_path: Path) -> None:
    own, _ = self_signed(tmp_path / "own", "127.0.0.9")
    other, _ = self_signed(tmp_path / "other", "127.0.0.9")
    tmp_path.parent.chmod(0o755)
    server = _TlsServer()
    server.tls = own.parent
    with server:
        url = server.url(server.create_database())

        def cipher(options: str) -> object:
            context = Context(Settings(db_url=url + options))
            return sql(context, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1]

        assert cipher("?ssl_ca=" + str(own) + "&ssl_check_hostname=false")
        assert cipher("")
        with pytest.raises(ProvisioningError, match="IP address mismatch"):
            cipher(f"?ssl_ca={own}")
        with pytest.raises(ProvisioningError, match="certificate verify failed"):
            cipher(f"?ssl_ca={other}&ssl_check_hostname=false")
