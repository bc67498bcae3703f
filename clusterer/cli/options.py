"""Options that all commands share, and the name of the operator for the audit."""

from __future__ import annotations

import functools
import getpass
import importlib.util
import logging
import math
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from clusterer.cli import completion
from clusterer.errors import ClustererError, InvalidArgument
from clusterer.ids import MAX_ID
from clusterer.runtime import logs
from clusterer.settings import Settings
from clusterer.settings.sources import load_settings, origins

Command = Callable[..., Any]


class Number(click.IntRange):
    """A whole number in a range; errors call it a number."""

    name = "number"


class Seconds(click.FloatRange):
    """Seconds in a range; errors call it a number."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number of seconds; click takes ``nan`` for a number in each range."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return seconds


def parsed_by(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """Return an option's callback: it parses the text, and raises wrong usage for a bad text."""

    def callback(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else parse(text)
        except InvalidArgument as error:
            raise click.BadParameter(f"{error}.") from error

    return callback


ID = Number(1, MAX_ID)
"""A cluster_id or machine_id."""

FILE = click.Path(path_type=Path, readable=False)
DIRECTORY = click.Path(file_okay=False, path_type=Path, readable=False)
"""Paths, which the shell completes; the command itself opens them."""

RATELIMIT = ("replicate_pipes_to", "accept_pipes_from", "accept_pipes_timeout")
"""Settings of the ratelimit module."""

_FREQUENT = ("redis_url", "db_url", "server_id", "data_dir", "log_format")
_OPTIONS = (
    click.option("--redis-url", metavar="URL", help="URL of Redis; by default an embedded server."),
    click.option("--db-url", metavar="URL", help="URL of the database; by default an SQLite file."),
    click.option("--server-id", metavar="N", type=int, help="machine_id of this instance."),
    click.option(
        "--data-dir",
        metavar="DIR",
        type=click.Path(file_okay=False, readable=False),
        help="Directory of the embedded Redis and SQLite file.",
    ),
    click.option("--config", metavar="FILE", type=FILE, help="TOML file with settings."),
    click.option(
        "--set",
        "assignments",
        metavar="NAME=VALUE",
        multiple=True,
        help="Value of any setting; `clusterer --help` names them.",
    ),
    click.option("-v", "--verbose", is_flag=True, help="Log at level debug, to stderr."),
    click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only."),
    click.option("--log-format", type=click.Choice(["human", "json"]), help="Form of log lines."),
)


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Give a command options and arguments, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def with_settings(
    *,
    log_level: int = logging.WARNING,
    also: Sequence[str] = (),
    log_prefix: str = "",
    with_origins: bool = False,
) -> Callable[[Command], Command]:
    """Give a command the shared options; the command gets ``settings``, merged of all sources.

    ``log_level`` is the level without -v and -q. ``also`` names the settings that have an option
    of the command. ``log_prefix`` stands before each log line of the command. ``with_origins``:
    the command also gets ``origins``, where each setting comes from.
    """
    own = [_setting_option(name) for name in also]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*args: Any, **options: Any) -> Any:
            verbose, quiet = options.pop("verbose"), options.pop("quiet")
            config = options.pop("config")
            warnings: list[str] = []
            values = _overrides(options, also)
            settings = load_settings(values, config=config, warn=warnings.append)
            if with_origins:
                options["origins"] = origins(values, config=config)
            if verbose or quiet:
                settings = replace(settings, log_level="debug" if verbose else "warning")
            name = click.get_current_context().info_name or "clusterer"
            logs.configure(settings, name, level=log_level, prefix=log_prefix)
            logs.warn(warnings)
            return command(*args, settings=settings, **options)

        return with_options(*own, *_OPTIONS)(wrapper)

    return decorate


def with_context(command: Command) -> Command:
    """Give a command the shared options; the command gets a ``context`` of the services."""

    @functools.wraps(command)
    def wrapper(settings: Settings, **options: Any) -> Any:
        from clusterer.services import Context

        with closing(Context(settings)) as context:
            return command(context, **options)

    return with_settings()(wrapper)


JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object with all fields."
)
LINES = click.option("--json", "as_lines", is_flag=True, help="Print one JSON object per line.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print the changes without making them.")
REASON = click.option(
    "--reason", metavar="TEXT", default="", help="Reason, which `clusterer events` shows."
)
CLUSTER = click.argument("cluster", type=ID, shell_complete=completion.clusters)
NODE = click.argument("node", type=ID, shell_complete=completion.machine_ids)


def cluster_option(about: str) -> Callable[[Command], Command]:
    """Return an option --cluster; ``about`` is its help."""
    return click.option(
        "--cluster", metavar="N", type=ID, shell_complete=completion.clusters, help=about
    )


def node_option(*names: str, about: str, many: bool = False) -> Callable[[Command], Command]:
    """Return an option with a machine_id; with ``many`` a user may give the option repeatedly."""
    return click.option(
        *names,
        metavar="N",
        type=ID,
        multiple=many,
        shell_complete=completion.machine_ids,
        help=about,
    )


def operator() -> str:
    """Return ``operator user@host`` for the audit, with the user of sudo."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    hands = os.environ.get("SUDO_USER", "")
    by = f" (sudo by {hands})" if hands not in ("", user) else ""
    return f"operator {user}@{socket.gethostname()}{by}".encode("utf-8", "replace").decode()


def _setting_option(name: str) -> Callable[[Command], Command]:
    """Return an option for one setting; its help is the description of the setting."""
    (item,) = (item for item in fields(Settings) if item.name == name)
    about = str(item.metadata["about"])
    about = about if about.startswith("cluster_id") else about[0].upper() + about[1:]
    return click.option(
        "--" + name.replace("_", "-"),
        metavar="N",
        type=type(item.default),
        help=f"{about}.",
    )


def _overrides(options: dict[str, Any], also: Sequence[str]) -> dict[str, Any]:
    """Remove the settings from ``options`` and return them; a setting's option wins over --set."""
    named = {name: options.pop(name) for name in (*_FREQUENT, *also)}
    assigned = dict(_split(text) for text in options.pop("assignments"))
    return assigned | {name: value for name, value in named.items() if value is not None}


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="'--set'")
    return name.strip(), value.strip()


def require_web() -> None:
    """Raise `ClustererError` unless the packages of the extra web are installed."""
    names = ("itsdangerous", "jinja2", "starlette", "uvicorn")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ClustererError(
            f"the console needs the extra web ({', '.join(missing)} missing): run "
            "`pip install 'clusterer[web]'`"
        )


def configure_logging(level: str) -> None:
    """Configure the log to stderr, of a command without settings."""
    logs.configure(Settings(log_level=level.lower()), "clusterer")
