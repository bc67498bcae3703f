"""The command line's manners: help, errors, exit codes, settings. No server runs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import redis

import clusterer
from clusterer.cli import main
from clusterer.cli.options import with_settings
from clusterer.cli.root import COMMANDS, cli
from clusterer.errors import (
    ClustererError,
    DatabaseUnavailable,
    SettingsError,
    StateUnavailable,
    UnknownNode,
)
from clusterer.settings import Settings
from tests.support.processes import child_environment

Capture = pytest.CaptureFixture[str]


def loaded(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_cli_every_command_has_help(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: clusterer {name}" in out
    assert max(map(len, out.splitlines())) <= 80
    for parameter in loaded(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_table_shows_first_line_of_help(name: str) -> None:
    """`clusterer --help` and completion take the line from the table, without the command."""
    assert COMMANDS[name][1] == f"{loaded(name).get_short_help_str(200).rstrip('.')}."


HEAVY = {
    "asyncio",
    "hiredis",
    "prometheus_client",
    "redis",
    "rich",
    "rq",
    "rq_scheduler",
    "sqlalchemy",
}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(["--help"], "", id="--help"),
        pytest.param(["--version"], "", id="--version"),
        pytest.param([], "clusterer se", id="complete-command"),
        pytest.param([], "clusterer --he", id="complete-option"),
    ],
)
def test_help_and_completion_import_no_command(arguments: list[str], line: str) -> None:
    """Help and completion take 0.2 s on an idle host; with redis and rq twice as long."""
    script = (
        "import atexit, sys; from clusterer.cli import main; "
        "atexit.register(lambda: print(*sys.modules)); sys.exit(main(sys.argv[1:]))"
    )
    *_, last = completed(script, arguments, line).splitlines()
    commands = {f"clusterer.cli.{place.partition(':')[0]}" for place, _ in COMMANDS.values()}
    assert "clusterer.cli.root" in last.split()
    assert not (HEAVY | commands) & set(last.split())


def test_help_of_commands_imports_no_services() -> None:
    """The completion of their options imports no services either."""
    script = (
        "import sys, click; from clusterer.cli.root import cli; "
        "[cli.get_command(click.Context(cli), name) for name in sys.argv[1:]]; print(*sys.modules)"
    )
    modules = completed(script, list(COMMANDS)).split()
    assert {"clusterer.cli.packets", "clusterer.cli.demo"} <= set(modules)
    assert not HEAVY & set(modules)


def completed(script: str, arguments: list[str], line: str = "") -> str:
    """Return what ``script`` prints when a shell completes ``line``, if that is not empty."""
    variables = {
        "_CLUSTERER_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=child_environment(variables if line else {}),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_cli_every_command_takes_shared_options(name: str) -> None:
    names = {option for parameter in loaded(name).params for option in parameter.opts}
    assert {"--redis-url", "--db-url", "--config", "--set", "-v", "-q"} <= names


def test_cli_demo_ignores_configuration() -> None:
    names = {option for parameter in loaded("demo").params for option in parameter.opts}
    assert names == {"--json", "--keep", "-v", "--verbose"}


def test_help_names_all_commands_and_settings(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2], "a line is cut off"
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in out
    for name in ("db_table", "backlog_max_age", "accept_pipes_timeout"):
        assert name in out


def test_cli_version_is_printed(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("clusterer ")


@pytest.mark.parametrize("arguments", [["nonsense"], ["list", "--nonsense"], ["worker", "other"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("clusterer: ")
    assert "Usage: clusterer" in said
    assert "--help` says more" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("lst", "list"), ("clusterer_set_status", "set-status"), ("node_add", "node-add")],
)
def test_cli_misspelt_command_gets_suggestion(typed: str, meant: str, capsys: Capture) -> None:
    assert main([typed]) == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in capsys.readouterr().err


def run_as_command(
    body: object, monkeypatch: pytest.MonkeyPatch, *arguments: str, name: str = "list"
) -> int:
    """Run ``clusterer list`` with ``body(settings)`` in place of what it does."""

    @click.command(name=name)
    @with_settings()
    def command(settings: Settings) -> None:
        body(settings)  # type: ignore[operator]

    monkeypatch.setattr(cli, "get_command", lambda *_: command)
    return main([name, *arguments])


def raising(error: BaseException) -> object:
    def body(settings: Settings) -> None:
        raise error

    return body


def test_cli_own_error_is_one_line_and_exit_code_1(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_as_command(raising(ClustererError("there is\n  no 7")), monkeypatch) == 1
    assert capsys.readouterr().err == "clusterer: there is no 7\n"


@pytest.mark.parametrize(
    ("error", "cause", "advice"),
    [
        (UnknownNode, None, "`clusterer list` shows all nodes"),
        (StateUnavailable, None, "`clusterer doctor` shows the remedy"),
        (DatabaseUnavailable, None, "`clusterer doctor` shows the remedy"),
        (
            ClustererError,
            errno.EACCES,
            "run the command as a user with this right, or give this user the right",
        ),
        (
            SettingsError,
            errno.EACCES,
            "run the command as a user with this right, or give this user the right",
        ),
        (ClustererError, errno.EADDRINUSE, "`ss -lntup` shows the process with this address"),
    ],
)
def test_cli_error_without_advice_gets_advice(
    error: type[ClustererError],
    cause: int | None,
    advice: str,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = error("no")
    wrong.__cause__ = OSError(cause, "no") if cause else None
    assert run_as_command(raising(wrong), monkeypatch) == 1
    assert capsys.readouterr().err == f"clusterer: no; {advice}\n"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("no: Redis at x: Gone", "no: Redis at x: Gone; start Redis, or correct redis_url"),
        (
            "no: Redis at x: OOM used memory > 1",
            "no: Redis at x: OOM used memory > 1; raise maxmemory",
        ),
        ("no Redis: start `clusterer up`", "no Redis: start `clusterer up`"),
    ],
)
def test_cli_redis_down_gives_advice(
    error: str, shown: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = StateUnavailable(error)
    wrong.__cause__ = redis.ResponseError(error.rpartition(": ")[2])
    assert run_as_command(raising(wrong), monkeypatch) == 1
    assert capsys.readouterr().err == f"clusterer: {shown}\n"


def test_cli_unexpected_error_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_as_command(raising(KeyError("oops")), monkeypatch) == 1
    assert (
        capsys.readouterr().err == "clusterer: internal error (-v shows more): KeyError: 'oops'\n"
    )


def test_cli_unexpected_error_with_option_shows_traceback(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_as_command(raising(KeyError("oops")), monkeypatch, "-v") == 1
    assert "Traceback" in capsys.readouterr().err


def test_cli_interrupt_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_as_command(raising(KeyboardInterrupt()), monkeypatch) == 130
    assert capsys.readouterr().err.strip() == "clusterer: interrupted"


def test_cli_settings_from_file_environment_options_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('db_url = "file"\nserver_id = 1\ndelivery_queue = "file"\nlinger = 1\n')
    monkeypatch.setenv("CLUSTERER_SERVER_ID", "2")
    monkeypatch.setenv("CLUSTERER_DELIVERY_QUEUE", "environment")
    monkeypatch.setenv("CLUSTERER_REDIS_URL", "environment")
    seen: list[Settings] = []
    options = [f"--config={config}", "--set", "linger = 2.5", "--redis-url=", "--server-id=3"]
    assert run_as_command(seen.append, monkeypatch, *options, "--set", "server_id=4") == 0
    (settings,) = seen
    assert (settings.db_url, settings.delivery_queue) == ("file", "environment")
    assert (settings.linger, settings.redis_url, settings.server_id) == (2.5, "", 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "sever_id=1"], 1, "unknown setting 'sever_id'"),
        (["--set", "linger=soon"], 1, "linger must be a number"),
        (["--set", "linger"], 2, "is not NAME=VALUE"),
        (["--config", "/nothing"], 1, "/nothing"),
        (["--server-id", "-4"], 1, "server_id must be from 0"),
    ],
)
def test_cli_invalid_settings_are_named(
    arguments: list[str], code: int, message: str, capsys: Capture
) -> None:
    assert main(["list", *arguments]) == code
    captured = capsys.readouterr().err
    assert message in captured
    assert "Traceback" not in captured


@pytest.mark.parametrize(
    "arguments",
    [
        ["events", "--since", "soon"],
        ["top", "--interval", "soon"],
        ["top", "--interval", "nan"],
        ["watch", "1", "--interval", "nan"],
        ["ping", "--within", "nan"],
        ["mi", "--mode", "999"],
        ["mi", "--mode", ""],
        ["mi", "--owner", "unknown-user"],
        ["mi", "--http", "1.2.3.4:99999"],
        ["mi", "--datagram", "nonsense"],
    ],
    ids=" ".join,
)
def test_cli_invalid_option_value_is_wrong_usage(arguments: list[str], capsys: Capture) -> None:
    assert main([*arguments, "--server-id", "1", "--redis-url", "redis://127.0.0.1:1/0"]) == 2
    said = capsys.readouterr().err
    *_, option, value = arguments
    assert said.startswith(f"clusterer: Invalid value for '{option}': '{value}'")
    assert f"; `clusterer {arguments[0]} --help` says more\n" in said


def test_cli_without_redis_explains_how_to_get_it(tmp_path: Path, capsys: Capture) -> None:
    assert main(["list", "--data-dir", str(tmp_path)]) == 1
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert "start `clusterer up`" in captured


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_cli_closed_pipe_ends_silently(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "clusterer", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=child_environment(),
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.parametrize("module", ["clusterer.settings", "clusterer.cli.nodes"])
def test_cli_ctrl_c_during_import_is_one_line(module: str) -> None:
    """Loading takes a fifth of a second, seconds on a busy machine."""
    script = """
import signal, sys
from clusterer.cli import main
assert not {"click", "redis", "clusterer.api"} & set(sys.modules), "loaded before it is caught"

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                pass  # lost, as in a callback of a weak reference, of which importing has many

sys.meta_path.insert(0, Impatient())
sys.exit(main(["list"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, module],
        capture_output=True,
        env=child_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, b"clusterer: interrupted\n")


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_cli_closed_stream_is_no_error(stream: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m clusterer doctor {stream}', sys.executable],
        capture_output=True,
        env=child_environment({"CLUSTERER_DATA_DIR": str(tmp_path)}),
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert (b" checks: " in done.stdout) == (">&-" not in stream.replace("2>&-", ""))


def test_cli_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "clusterer", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=child_environment(),
            check=False,
        )
    message = b"clusterer: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_package_exports_exactly_its_names() -> None:
    for name in clusterer.__all__:
        assert getattr(clusterer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        clusterer.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_instance_loads_no_sqlalchemy() -> None:
    script = "import sys, clusterer.api; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
