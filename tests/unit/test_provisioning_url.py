"""Values of db_url."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterer.errors import SettingsError
from clusterer.provisioning.url import database_url, public_name
from clusterer.settings import Settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "mysql://opensips:rw@localhost/opensips",
            ("opensips", "rw", "localhost", None, "opensips"),
        ),
        ("mysql://opensips@192.168.0.7/o", ("opensips", None, "192.168.0.7", None, "o")),
        ("mysql://u:p@db:3307/o", ("u", "p", "db", 3307, "o")),
        ("mysql://u:p@[::1]:3307/o", ("u", "p", "::1", 3307, "o")),
        ("mysql://u:a@b:c/d?e#%40@db/o", ("u", "a@b:c/d?e#%40", "db", None, "o")),
        ("mysql://u:@db/o", ("u", "", "db", None, "o")),
        ("mysql:///o", (None, None, "localhost", None, "o")),
        ("mariadb://u:p@db/o", ("u", "p", "db", None, "o")),
        ("mysql+pymysql://u:a%40b@db:1/o", ("u", "a@b", "db", 1, "o")),
    ],
)
def test_mysql_urls_are_read_as_opensips_reads_them(text: str, expected: object) -> None:
    url = database_url(Settings(db_url=text))
    assert url.drivername == "mysql+pymysql"
    assert (url.username, url.password, url.host, url.port, url.database) == expected


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql"])
def test_options_follow_in_both_forms(scheme: str) -> None:
    url = database_url(
        Settings(db_url=f"{scheme}://u:p@db/o?ssl_ca=/etc/ca.pem&unix_socket=/run/m.sock")
    )
    assert url.query == {"ssl_ca": "/etc/ca.pem", "unix_socket": "/run/m.sock"}
    assert url.database == "o"


def test_empty_url_is_a_file_in_the_data_directory(tmp_path: Path) -> None:
    url = database_url(Settings(data_dir=str(tmp_path)))
    assert (url.drivername, url.database) == ("sqlite", str(tmp_path / "clusterer.db"))


@pytest.mark.parametrize(
    "text",
    [
        "mysql://u:secret@db",
        "mysql://u:secret@db/",
        "mysql://u:secret@db:x/o",
        "mysql://u:secret@db:0/o",
        "mysql://u:secret@db:70000/o",
        "mysql+pymysql://u:secret@db:secret/o",
        "mysql://u:secret@db/o?nonsense=1",
        "mysql://u:secret@db/o?password=secret&secret=1",
        "mysql+pymysql://u:secret@x@db/o",
        "nonsense://u:secret@db/o",
        "secret",
        "secret://secret",
    ],
)
def test_bad_url_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(SettingsError, match="db_url") as caught:
        database_url(Settings(db_url=text))
    assert "secret" not in str(caught.value)


def test_unknown_option_is_named() -> None:
    with pytest.raises(SettingsError, match="db_url has an unknown option 'nonsense'"):
        database_url(Settings(db_url="mysql://u:secret@db/o?nonsense=1"))


def test_messages_show_neither_password_nor_options() -> None:
    url = database_url(Settings(db_url="mysql://u:secret@db:3307/o?ssl_key_password=secret"))
    assert public_name(url) == "mysql+pymysql://u:***@db:3307/o"
