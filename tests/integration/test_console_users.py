"""``clusterer console-user`` and ``console-token``: output as in the docs, and wrong usage."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from clusterer.cli import main
from tests.support import docs, transcripts

Capture = pytest.CaptureFixture[str]
Run = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.usefixtures("in_environment")


@pytest.fixture
def run(capsys: Capture) -> Run:
    """Run a command; return its exit code and what it prints."""

    def ran(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return ran


@pytest.mark.parametrize("name", ["console-user", "console-token"])
def test_docs_console_accounts_are_as_shown(name: str, run: Run, tmp_path: Path) -> None:
    password = tmp_path / "anna"
    password.write_text("correct horse\n")
    for (_, *words), on_page in transcripts.sessions(docs.command_section(name)):
        code, printed = run(*(w.replace("/run/secrets/anna", str(password)) for w in words))
        plain = re.sub(r"grafana\.\S{43}", "grafana.<secret>", printed)
        page = re.sub(r"grafana\.\S{43}", "grafana.<secret>", on_page)
        assert transcripts.plain(plain) == transcripts.plain(page)
        assert code == 0


def test_console_secrets_are_not_in_redis(
    run: Run, tmp_path: Path, redis_client: redis.Redis
) -> None:
    (tmp_path / "anna").write_text("correct horse")
    file = f"--password-file={tmp_path / 'anna'}"
    assert run("console-user", "add", "anna", "--role", "view", file)[0] == 0
    token = run("console-token", "add", "anna", "--role", "operate")[1].strip()
    stored = str(redis_client.hgetall("clusterer:console:users"))
    assert "user:anna" in stored
    assert "token:anna" in stored
    assert "correct horse" not in stored
    assert token.partition(".")[2] not in stored


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["console-user", "add", "anna", "--role", "view"], 2, "--password-file"),
        (["console-user", "add", "anna"], 2, "--role"),
        (["console-user", "add"], 2, "NAME is missing"),
        (["console-user", "remove", "anna"], 1, "no user 'anna'"),
        (["console-token", "remove", "anna"], 1, "no token 'anna'"),
        (["console-token", "add", "an na", "--role", "view"], 1, "'an na' is no name"),
        (["console-user", "add", "a", "--role", "view", "--password-file=/x/y"], 1, "/x/y"),
        (["console-user", "add", "a", "--role", "view", "--password-file=/dev/null"], 1, "has 0"),
        (["console", "--address", "example.net"], 2, "no IP address"),
        (["console", "--trusted-proxy", "x"], 2, "--trusted-proxy"),
        (["console", "--address", "192.0.2.1"], 1, "console-user add NAME --role view"),
    ],
)
def test_console_wrong_usage_says_what_is_missing(
    run: Run, words: list[str], code: int, text: str
) -> None:
    found, printed = run(*words)
    assert (found, text in printed) == (code, True), printed


def test_console_token_name_is_used_once(run: Run) -> None:
    assert run("console-token", "add", "a", "--role", "view")[0] == 0
    code, printed = run("console-token", "add", "a", "--role", "view")
    assert (code, "already" in printed) == (1, True)
