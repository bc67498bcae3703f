"""Redis's errors in words for people: what is wrong, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from clusterer.endpoint import awaited, error_at, error_text, remedy
from clusterer.errors import StateUnavailable
from clusterer.settings import Settings
from clusterer.store import translated

SHA = "0" * 40
ELSE = "start Redis, or correct redis_url"


@pytest.mark.parametrize(
    ("text", "shown", "what"),
    [
        (
            "Error 111 connecting to 127.0.0.1:1. Connection refused.",
            "Connection refused",
            "start Redis, or correct redis_url",
        ),
        (
            "Error 2 connecting to /a.b/redis.sock. No such file or directory.",
            "No such file or directory",
            "start Redis, or correct redis_url",
        ),
        (
            "Command # 1 (GET a) of pipeline caused error: OOM not allowed when used memory > 9.",
            "OOM not allowed when used memory > 9",
            "raise maxmemory",
        ),
        (
            f"You can't write against a read only replica. script: {SHA}, on @user_script:35",
            "You can't write against a read only replica",
            "point redis_url at the primary server",
        ),
        (
            "HELLO must be called with the client already authenticated, otherwise …",
            "Authentication required",
            "correct user and password in redis_url",
        ),
        (
            "invalid username-password pair or user is disabled.",
            "invalid username-password pair or user is disabled",
            "correct user and password in redis_url",
        ),
        (
            "this user has no permissions to run the 'time' command",
            "this user has no permissions to run the 'time' command",
            "let redis_url's user do that: `ACL SETUSER`",
        ),
    ],
)
def test_endpoint_error_is_short_and_has_advice(text: str, shown: str, what: str) -> None:
    error = redis.RedisError(text)
    assert error_text(error) == shown
    assert error_at(Settings(redis_url="redis://:secret@h:1/0"), error) == (
        f"Redis at redis://:***@h:1/0: {shown}"
    )
    assert remedy(error) == what


def test_endpoint_awaited_redis_has_what_to_do(tmp_path: Path) -> None:
    error = redis.ConnectionError("Error 111 connecting to h:1. Connection refused.")
    configured = Settings(redis_url="redis://h:1/0")
    assert awaited(configured, error) == f"Redis at redis://h:1/0: Connection refused: {ELSE}"
    assert awaited(Settings(data_dir=str(tmp_path)), error) == (
        f"Redis: redis_url is not set, and no embedded Redis runs in {tmp_path}: "
        "start `clusterer up`, or set redis_url"
    )


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (redis.ConnectionError("Error -2 connecting to password-db:1. Name not known."), ELSE),
        (redis.TimeoutError("Timeout reading from READONLY.password.example.net:1"), ELSE),
        (redis.AuthenticationError("WRONGPASS"), "correct user and password in redis_url"),
        (redis.ReadOnlyError("no"), "point redis_url at the primary server"),
        (redis.exceptions.MasterDownError("no"), "point redis_url at the primary server"),
        (redis.OutOfMemoryError("no"), "raise maxmemory"),
        (redis.BusyLoadingError("no"), "wait until it has"),
        (redis.ResponseError("ERR unknown command"), ELSE),
    ],
)
def test_endpoint_advice_follows_error_not_url(error: redis.RedisError, what: str) -> None:
    assert remedy(error) == what
    with (
        pytest.raises(StateUnavailable) as caught,
        translated(Settings(redis_url="redis://password:READONLY@password-loading:1"), "MISCONF"),
    ):
        raise error
    assert remedy(caught.value) == what
