"""No password is ever shown, whatever is wrong with the URL that holds it."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clusterer.cli.run import run
from clusterer.endpoint import error_at, open_client, public_url
from clusterer.errors import ClustererError, SettingsError
from clusterer.provisioning.database import Database
from clusterer.provisioning.url import database_url, public_name
from clusterer.runtime.logs import hidden
from clusterer.runtime.logs.formats import HumanFormatter, JsonFormatter
from clusterer.settings import Settings
from clusterer.settings.sources import load_settings
from tests.support.scale import scaled

MARK = "Zq7"
"""In each part of a password, so that a part of it is found as well as the whole."""

SPECIAL = "#/?[]@:%&=+ \\'\"{}<>|^`,;!$()*~"

passwords = st.lists(
    st.sampled_from([*SPECIAL, "1", "é", "℀", "%41", "%zz", "//", "://", "password=", "db="]),
    min_size=1,
    max_size=6,
).map(lambda parts: MARK + "".join(f"{part}{MARK}" for part in parts))

REDIS_FORMS = [
    "redis://:{}@127.0.0.1:1/0",
    "redis://user:{}@127.0.0.1:1/0",
    "redis://{}@127.0.0.1:1/0",
    "redis://:{}@[::1]:1",
    "redis://:{}@127.0.0.1:x/0",
    "redis://:{}@127.0.0.1:99999/0",
    "redis://127.0.0.1:1/0?password={}",
    "redis://127.0.0.1:1/0?db=1&password={}&username={}",
    "rediss://127.0.0.1:1/0?ssl_password={}",
    "redis://127.0.0.1:1/0?ssl_password={}",
    "redis://127.0.0.1:1/0?protocol={}",
    "redis://127.0.0.1:1/0?{}={}",
    "unix:///run/none.sock?password={}",
    "unix://user:{}@/run/none.sock",
    "unix://user:{}@host/run/none.sock",
    "sentinel://user:{}@127.0.0.1:1/sip",
    "sentinel://{}@127.0.0.1:1,127.0.0.1:2/sip/0",
    "sentinel://user:{}@127.0.0.1:1,127.0.0.1:x/sip",
    "sentinel://127.0.0.1:1/sip?sentinel_password={}",
    "sentinel://127.0.0.1:1/sip?sentinel_username={}&sentinel_password={}",
    "sentinels://127.0.0.1:1/sip?password={}&ssl_password={}",
    "redis+cluster://user:{}@127.0.0.1:1",
    "redis:{}@127.0.0.1",
    "http://:{}@127.0.0.1:1/0",
    ":{}@127.0.0.1:1/0",
    "{}",
]
DB_FORMS = [
    "mysql://user:{}@127.0.0.1:1/o",
    "mysql://user:{}@127.0.0.1:0/o",
    "mysql://user:{}@127.0.0.1:1",
    "mysql://{}@127.0.0.1:1/o",
    "mysql://127.0.0.1:1/o?password={}",
    "mysql+pymysql://user:{}@127.0.0.1:1/o",
    "mysql+pymysql://user:{}@127.0.0.1:x/o",
    "mysql+pymysql://{}@127.0.0.1:1/o",
    "mysql+pymysql://127.0.0.1:1/o?ssl_key_password={}",
    "sqlite://user:{}@/none",
    "postgresql://user:{}@127.0.0.1:1/o",
    "user:{}@127.0.0.1:1/o",
    "{}",
]


def shown_of(error: BaseException) -> str:
    """Return all that a log may show of an error, its causes and contexts included."""
    text = "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        text += repr(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return text


def shown_of_redis(url: str) -> str:
    settings = Settings(redis_url=url)
    shown = repr(settings) + public_url(settings) + error_at(settings, redis.RedisError("no"))
    try:
        with open_client(settings, socket_timeout=0.1) as client:
            shown += repr(client) + repr(client.connection_pool)
            client.ping()
    except (ClustererError, redis.RedisError) as error:
        shown += shown_of(error)
    return shown


def shown_of_database(url: str) -> str:
    settings = Settings(db_url=url)
    shown = repr(settings)
    try:
        database = Database(settings)
        shown += database.name + repr(database)
        with database.connection("ask"):
            pass
    except ClustererError as error:
        shown += shown_of(error)
    return shown


def assert_hidden(shown: str, password: str) -> None:
    for form in (MARK, password, quote(password), quote(password, safe="")):
        assert form not in shown


@pytest.mark.parametrize("form", REDIS_FORMS)
@given(password=passwords, encoded=st.booleans())
@hypothesis_settings(max_examples=scaled(25, 50))
@example(password=f"{MARK}#{MARK}", encoded=False)
def test_redis_url_of_any_form_stays_hidden(form: str, password: str, encoded: bool) -> None:
    written = quote(password, safe="") if encoded else password
    assert_hidden(shown_of_redis(form.replace("{}", written)), password)


@pytest.mark.parametrize("form", DB_FORMS)
@given(password=passwords, encoded=st.booleans())
@hypothesis_settings(max_examples=scaled(25, 50))
@example(password=f"{MARK}@{MARK}", encoded=False)
@example(password=f"{MARK}@{MARK}/{MARK}", encoded=False)
def test_db_url_of_any_form_stays_hidden(form: str, password: str, encoded: bool) -> None:
    if form.startswith(("mysql://{}", "mysql+pymysql://{}")):
        password = password.replace(":", "")  # what is before a colon is the user, and shown
    written = quote(password, safe="") if encoded else password
    assert_hidden(shown_of_database(form.replace("{}", written)), password)


@pytest.mark.parametrize(
    ("character", "code"), [("#", "%23"), ("/", "%2F"), ("?", "%3F"), ("[", "%5B"), ("]", "%5D")]
)
def test_character_of_a_password_is_named_with_its_code(character: str, code: str) -> None:
    for url in (f"redis://:s3cr{character}et@127.0.0.1:1/0", f"unix://:a{character}b@/run/r.sock"):
        with pytest.raises(SettingsError) as caught:
            open_client(Settings(redis_url=url))
        assert f"write {character} in user or password percent-encoded, as {code}" in str(
            caught.value
        )


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://h:1/2",
        "redis://[::1]:1/2",
        "redis://[fe80::1%25eth0]:1",
        "rediss://h:1/0",
        "unix:///run/redis.sock",
        "unix:///run/a@b.sock",
        "sentinel://h/sip",
        "sentinel://h:1,[::1]:2,i/sip.example-1/3",
        "sentinels://h:1/sip",
    ],
)
def test_url_without_secrets_is_shown(url: str) -> None:
    assert public_url(Settings(redis_url=url)).rstrip("/") == url.rstrip("/")
    open_client(Settings(redis_url=url)).close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0?password=hunter2", "redis://h:6379/0"),
        ("unix:///run/redis.sock?password=hunter2&db=3", "unix:///run/redis.sock?db=3"),
        ("redis://u:p%40w@h/0", "redis://***@h/0"),
        ("redis://:a:b@c@h/0", "redis://:***@h/0"),
        ("redis://h/0?password=a@b", "redis://h/0"),
        ("redis://token@h/0", "redis://***@h/0"),
        ("sentinel://u:a,b@h:1,i/sip?db=2&sentinel_password=x", "sentinel://***@h:1,i/sip?db=2"),
    ],
)
def test_secrets_of_a_good_url_are_left_out(url: str, shown: str) -> None:
    settings = Settings(redis_url=url)
    assert public_url(settings) == shown
    open_client(settings).close()


def test_user_without_password_is_left_out() -> None:
    url = database_url(Settings(db_url="mysql://token@db/o"))
    assert public_name(url) == "mysql+pymysql://***@db/o"


@pytest.mark.parametrize(
    "words",
    [
        ["list", f"redis://:{MARK}@h"],
        ["list", "--set", f"redis://:{MARK}@h"],
        ["list", "--set", f"redis://:{MARK}=x@h"],
        ["list", f"--redis-ulr=redis://:{MARK}@h"],
        ["list", f"--redis-url=redis://:{MARK}#x@h"],
        ["-v", f"redis://:{MARK}@h"],
    ],
)
def test_command_line_with_an_error_is_not_repeated(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) != 0
    captured = capsys.readouterr()
    assert MARK not in captured.out + captured.err
    assert captured.err.count("\n") == 1 or words[0] == "-v"


def test_setting_of_a_wrong_type_is_not_repeated(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f'redis_url = ["redis://:{MARK}@h"]\n', encoding="utf-8")
    with pytest.raises(SettingsError, match="redis_url must be text, not list") as caught:
        load_settings(config=config, environ={})
    assert MARK not in shown_of(caught.value)


@pytest.mark.parametrize("formatter", [HumanFormatter(), JsonFormatter("test")])
def test_log_line_with_a_url_of_others_is_masked(formatter: logging.Formatter) -> None:
    raised: Any = None
    try:
        int(f"cannot parse redis://:{MARK}/x@h/0?password={MARK}&db=1")
    except ValueError as error:
        raised = error, sys.exc_info()
    record = logging.LogRecord("rq", logging.ERROR, __file__, 1, "at %s", raised[:1], raised[1])
    line = formatter.format(record)
    assert MARK not in line
    assert line.count("redis://***@h/0?password=***&db=1") >= 2


@pytest.mark.parametrize(
    "text",
    [
        "Redis at redis://u:***@h:1/0: no",
        "mysql+pymysql://opensips:***@h/o and https://example.net/x",
        "sip:alice@example.net is in contact <sip:alice@[::1]:5060>",
    ],
)
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert hidden(text) == text
