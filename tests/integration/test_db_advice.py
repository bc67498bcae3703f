"""Advice after a real MariaDB refuses a connection or a statement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from clusterer.errors import DatabaseUnavailable
from clusterer.provisioning.database import Database
from clusterer.services.context import Context
from clusterer.services.doctor import table
from clusterer.services.table import init_db
from clusterer.settings import Settings
from tests.support.certificates import self_signed
from tests.support.mariadb_server import USER, MariaDBServer

pytestmark = pytest.mark.mariadb


class TlsServer(MariaDBServer):
    """MariaDB that offers TLS with the certificate in ``tls``."""

    tls: Path

    def _common_options(self, data: Path) -> list[str]:  # type: ignore[override]
        files = [f"--ssl-cert={self.tls / 'cert.pem'}", f"--ssl-key={self.tls / 'key.pem'}"]
        return [*super()._common_options(data), *files]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    directory = tmp_path_factory.mktemp("tls")
    for path in (directory.parent, directory):
        path.chmod(0o755)
    certificate, _ = self_signed(directory / "own", "127.0.0.1")
    server = TlsServer()
    server.tls = certificate.parent
    with server:
        server.execute(
            "CREATE USER guest@'%' IDENTIFIED BY 'private'",
            "GRANT SELECT, INSERT, UPDATE, CREATE ON *.* TO guest@'%'",
            "CREATE USER proven@'%' IDENTIFIED BY 'private' REQUIRE X509",
        )
        yield server


@pytest.fixture(scope="module")
def url(server: TlsServer) -> str:
    url = server.url(server.create_database())
    init_db.run(Context(Settings(db_url=url)))
    return url


def ask(url: str, statement: str = "SHOW STATUS LIKE 'Ssl_cipher'") -> str:
    """Return the cipher, or the complaint about ``statement``."""
    with Database(Settings(db_url=url)).connection("ask") as connection, connection.begin():
        found = connection.execute(text(statement))
        return str(found.fetchall()[0][1]) if found.returns_rows else ""


def complaint(url: str, statement: str = "SELECT 1, 2") -> str:
    with pytest.raises(DatabaseUnavailable) as caught:
        ask(url, statement)
    assert caught.value.advised
    assert "private" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("", True),
        ("?ssl=true", True),
        ("?ssl_disabled=false", True),
        ("?ssl=false", False),
        ("?ssl_disabled=true", False),
        ("?ssl_ca={ca}", True),
        ("?ssl_ca={ca}&ssl_check_hostname=no", True),
        ("?ssl_ca={ca}&ssl_verify_identity=true", True),
        ("?connect_timeout=1.5&charset=utf8&max_allowed_packet=4096", True),
    ],
)
def test_options_for_tls_do_what_they_say(
    server: TlsServer, url: str, options: str, encrypted: bool
) -> None:
    assert bool(ask(url + options.format(ca=server.tls / "cert.pem"))) is encrypted


def test_ssl_true_insists_on_encryption(mariadb_url: str) -> None:
    assert ask(mariadb_url) == ""
    text = complaint(f"{mariadb_url}?ssl=true")
    assert "SSL is required" in text
    assert "let the server offer TLS" in text


def test_server_that_demands_tls_is_told(server: TlsServer, url: str) -> None:
    server.execute("SET GLOBAL require_secure_transport = ON")
    try:
        assert ask(f"{url}?ssl=true")
        assert "leave ssl=false out of db_url" in complaint(f"{url}?ssl=false")
    finally:
        server.execute("SET GLOBAL require_secure_transport = OFF")


def test_user_that_needs_a_certificate_is_told(url: str) -> None:
    assert "needs ssl_cert and ssl_key" in complaint(url.replace(USER, "proven", 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("ssl_verify_cert=true", "have the CA's file as ssl_ca"),
        ("ssl_ca=/none.pem", "the option ssl_ca cannot be used: No such file"),
        ("ssl_cert=/none.pem", "the option ssl_cert cannot be used: No such file"),
        ("ssl_cipher=x", "the option ssl_cipher cannot be used"),
    ],
)
def test_tls_that_fails_names_the_option(url: str, options: str, message: str) -> None:
    assert message in complaint(f"{url}?{options}")


def test_read_only_server_points_at_the_primary(server: TlsServer, url: str) -> None:
    settings = Settings(db_url=url.replace(USER, "guest", 1), persistent_mode=True)
    server.execute("SET GLOBAL read_only = ON")
    try:
        told = complaint(settings.db_url, "UPDATE clusterer SET state = 0")
        first = next(iter(table.check(Context(settings), redis=False)))
    finally:
        server.execute("SET GLOBAL read_only = OFF")
    assert "the server is read-only: point db_url at the primary" in told
    assert "point db_url at the primary" in first.text
    assert first.advice == "follow this advice, or turn persistent_mode off"


def test_character_a_column_lacks_names_the_column(server: TlsServer, url: str) -> None:
    database = urlsplit(url).path[1:]
    server.execute("ALTER TABLE clusterer CONVERT TO CHARACTER SET latin1", database=database)
    write = (
        "INSERT INTO clusterer (id, cluster_id, machine_id, url, description) "
        "VALUES (1, 1, 1, 'bin:127.0.0.1:5555', '漢字')"
    )
    told = complaint(url, write)
    assert "the character set of column description lacks a character" in told
    assert "leave charset out" in complaint(f"{url}?charset=latin1", write)
    remedy = told.partition("run ")[2].partition(",")[0]
    server.execute(remedy, database=database)
    ask(url, write)
