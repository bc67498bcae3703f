"""The options of db_url: known or not, with which values, and what the driver gets of them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pymysql.connections import Connection
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from clusterer.errors import DatabaseUnavailable, SettingsError
from clusterer.provisioning.advice import advice
from clusterer.provisioning.database import Database
from clusterer.provisioning.options import driver_arguments
from clusterer.settings import Settings

FORMS = ("mysql://u:p@127.0.0.1:1/o?", "mysql+pymysql://u:p@127.0.0.1:1/o?")


def refusal(url: str) -> str:
    with pytest.raises(SettingsError, match=r"^db_url ") as caught:
        Database(Settings(db_url=url))
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("ssl_mode=REQUIRED", "has the option ssl_mode after the ?: REQUIRED is ssl=true"),
        ("ssl-mode=VERIFY_CA", "VERIFY_CA is ssl_ca=FILE&ssl_check_hostname=false"),
        ("tls=1", "has the option tls after the ?: it is ssl=true (encrypted)"),
        ("useSSL=true", "has the option usessl after the ?: it is ssl=true (encrypted)"),
        ("ssl=maybe", "has an option ssl after the ? that is not true or false"),
        ("ssl", "has an option after the ? that is unknown or has no value"),
        ("ssl=", "an option ssl after the ?|has no value"),
        ("ssl_disabled=true&ssl_ca=/ca.pem", "contradict each other: no TLS, and ssl_ca"),
        ("ssl=false&ssl_verify_cert=true", "contradict each other: no TLS, and ssl_verify_cert"),
        ("ssl_key=/key.pem", "has the option ssl_key without ssl_cert"),
        ("charset=bogus", "has an option charset after the ? that is not a character set"),
        ("charset=geostd8", "has an option charset after the ? that is not a character set"),
        ("charset=utf8&charset=latin1", "has the option charset twice"),
        ("connect_timeout=x", "has an option connect_timeout after the ? that is not a number"),
        ("read_timeout=0", "not a number of seconds above 0"),
        ("max_allowed_packet=x", "not a whole number from 1024"),
        ("local_infile=true", "clusterer sets it itself: leave it out"),
        ("compress=true", "the driver does not have it"),
        ("user=a", "write it before the ?"),
        ("read_default_file=/etc/passwd", "CLUSTERER_DB_URL_FILE"),
        ("nonsense=1", "has an unknown option 'nonsense' after the ?"),
    ],
)
def test_db_option_that_cannot_be_used_is_named(form: str, query: str, message: str) -> None:
    text = refusal(form + query)
    assert any(part in text for part in message.split("|"))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("nonsense=1", "has an unknown option 'nonsense'"),
        ("timeout=x", "has an option timeout after the ? that is not a number of seconds"),
        ("mode=x", "that is not ro or rw or rwc or memory"),
        ("isolation_level=x", "clusterer sets it itself"),
    ],
)
def test_sqlite_option_that_cannot_be_used_is_named(query: str, message: str) -> None:
    assert message in refusal(f"sqlite:////tmp/none.db?{query}")


@pytest.mark.parametrize("form", FORMS)
def test_db_option_of_the_driver_is_taken_or_refused(form: str) -> None:
    for name in inspect.signature(Connection).parameters:
        for value in ("1", "true", "x"):
            try:
                Database(Settings(db_url=f"{form}{name}={value}"))
            except SettingsError as error:
                assert str(error).startswith("db_url has ")  # noqa: PT017 - or no error


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {}),
        ({"ssl": "true"}, {"ssl": {"verify_mode": False, "check_hostname": False}}),
        ({"ssl": "false"}, {"ssl_disabled": True}),
        ({"ssl_disabled": "yes"}, {"ssl_disabled": True}),
        ({"ssl_disabled": "false"}, {}),
        (
            {"ssl_ca": "f"},
            {"ssl": {"ca": "f", "verify_mode": True, "check_hostname": True}},
        ),
        (
            {"ssl_capath": "d", "ssl_check_hostname": "false", "ssl_cipher": "c"},
            {
                "ssl": {
                    "capath": "d",
                    "cipher": "c",
                    "verify_mode": True,
                    "check_hostname": False,
                }
            },
        ),
        (
            {"ssl_ca": "f", "ssl_verify_cert": "false"},
            {"ssl": {"verify_mode": False, "check_hostname": False}},
        ),
        (
            {"ssl_cert": "c", "ssl_key": "k", "ssl_key_password": "p"},
            {
                "ssl": {
                    "cert": "c",
                    "key": "k",
                    "password": "p",
                    "verify_mode": False,
                    "check_hostname": False,
                }
            },
        ),
        (
            {"read_timeout": "2.5", "max_allowed_packet": "2048", "charset": "utf8"},
            {"read_timeout": 2.5, "max_allowed_packet": 2048, "charset": "utf8"},
        ),
    ],
)
def test_driver_gets_the_options_in_its_terms(query: dict[str, str], expected: Any) -> None:
    assert driver_arguments(query) == expected


def test_verification_without_a_ca_trusts_the_system() -> None:
    secured = driver_arguments({"ssl_verify_identity": "true"})["ssl"]
    assert secured["verify_mode"]
    assert secured["check_hostname"]
    assert secured.keys() & {"ca", "capath"}


@pytest.mark.parametrize(
    ("number", "text", "expected"),
    [
        (1290, "running with the --read-only option", "point db_url at the primary"),
        (1290, "running with the --super-read-only option", "point db_url at the primary"),
        (1290, "running with the --skip-grant-tables option", ""),
        (1836, "Running in read-only mode", "point db_url at the primary"),
        (1792, "Cannot execute statement in a READ ONLY transaction", "at the primary"),
        (3159, "Connections using insecure transport are prohibited", "write ssl=true"),
        (1040, "Too many connections", "raise the server's max_connections"),
        (1366, r"Incorrect string value: '\xF0' for column 'url' at row 1", "of column url lacks"),
        (
            1366,
            r"Incorrect string value: '\xF0' for column `o`.`clusterer`.`description` at row 2",
            "column description lacks a character: run ALTER TABLE `nodes` CONVERT TO",
        ),
        (1366, "Incorrect integer value: 'x' for column `o`.`t`.`state` at row 1", ""),
        (9999, "read-only primary utf8mb4", ""),
    ],
)
def test_advice_follows_the_number_of_the_error(number: int, text: str, expected: str) -> None:
    error = OperationalError("x", {}, Exception(number, text))
    url = make_url("mysql+pymysql://read-only:REQUIRE@ssl/tls")
    found = advice(error, url, table="nodes", literal=False)
    assert expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("mssql+pyodbc://u:p@h/c", "install the package pyodbc, or name a MySQL"),
        ("mysql+mysqldb://u:p@h/c", "begin db_url with mysql://"),
        ("mariadb+mysqlconnector://u:p@h/c", "begin db_url with mysql://"),
    ],
)
def test_db_url_without_its_driver_has_advice(url: str, advice: str) -> None:
    database = Database(Settings(db_url=url))
    with pytest.raises(DatabaseUnavailable, match=advice), database.connection("ask"):
        pass
