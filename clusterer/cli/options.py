"""Options that all commands share."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from clusterer.settings import Settings, load_settings

Command = Callable[..., Any]

RATELIMIT = ("replicate_pipes_to", "accept_pipes_from", "accept_pipes_timeout")
"""Settings of the ratelimit module."""

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SHORT_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_FREQUENT = ("redis_url", "db_url", "server_id", "data_dir")
_OPTIONS = (
    click.option("--redis-url", metavar="URL", help="Redis; without one, an embedded server."),
    click.option("--db-url", metavar="URL", help="Database; without one, an SQLite file."),
    click.option("--server-id", metavar="N", type=int, help="machine_id of this instance."),
    click.option("--data-dir", metavar="DIR", help="Where embedded Redis and SQLite live."),
    click.option("--config", metavar="FILE", type=Path, help="TOML file with settings."),
    click.option(
        "--set",
        "assignments",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any other setting; `clusterer --help` names them.",
    ),
    click.option("-v", "--verbose", is_flag=True, help="Log more (to stderr)."),
    click.option("-q", "--quiet", is_flag=True, help="Log only warnings and errors."),
)


def with_settings(
    *, log_level: int = logging.WARNING, also: Sequence[str] = (), log_prefix: str = ""
) -> Callable[[Command], Command]:
    """Give a command the shared options; it gets ``settings``, what they all add up to.

    ``log_level`` is what it logs without -v or -q. ``also`` names settings for which it has
    options of their own. ``log_prefix`` stands before each of its log lines.
    """
    own = [_setting_option(name) for name in also]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*args: Any, **options: Any) -> Any:
            verbose, quiet = options.pop("verbose"), options.pop("quiet")
            level = logging.DEBUG if verbose else logging.WARNING if quiet else log_level
            configure_logging(level, prefix=log_prefix)
            config = options.pop("config")
            settings = load_settings(_overrides(options, also), config=config)
            return command(*args, settings=settings, **options)

        for option in reversed([*own, *_OPTIONS]):
            option(wrapper)
        return wrapper

    return decorate


def _setting_option(name: str) -> Callable[[Command], Command]:
    """Return an option for one setting; its help is what the setting is about."""
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
    """Take the settings out of ``options``; an option of its own wins over --set."""
    named = {name: options.pop(name) for name in (*_FREQUENT, *also)}
    assigned = dict(_split(text) for text in options.pop("assignments"))
    return assigned | {name: value for name, value in named.items() if value is not None}


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="'--set'")
    return name.strip(), value.strip()


def configure_logging(level: int | str, *, prefix: str = "") -> None:
    """Log to stderr, for people. ``prefix`` names the process instead of each line's logger."""
    line = f"{prefix}{_SHORT_FORMAT}" if prefix else _FORMAT
    logging.basicConfig(level=level, format=line, stream=sys.stderr, force=True)
