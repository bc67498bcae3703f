"""``clusterer console-user`` and ``console-token``: the accounts of the console."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clusterer.cli import completion
from clusterer.cli.options import with_settings
from clusterer.cli.text import stamp
from clusterer.errors import ClustererError
from clusterer.settings import Settings

if TYPE_CHECKING:
    from clusterer.services import Context

ACTIONS = ("add", "list", "remove")

_MOST_FILE = 65_536
"""Bytes of a file with a password."""


def _account_command(command: Any) -> Any:
    """Give a command the arguments ACTION and NAME, and the option --role."""
    for option in (
        click.option("--role", type=click.Choice(["view", "operate"]), help="Role; for add."),
        click.argument("name", required=False),
        click.argument("action", metavar="ACTION", type=click.Choice(ACTIONS)),
    ):
        command = option(command)
    return command


@click.command(name="console-user")
@_account_command
@click.option(
    "--password-file",
    metavar="FILE",
    type=Path,
    shell_complete=completion.files,
    help="File with the password; - for stdin. By default the command prompts for the password.",
)
@with_settings()
def console_user(
    settings: Settings, *, action: str, name: str | None, role: str | None, **more: Any
) -> None:
    """Add, list or remove users of the console.

    ACTION is add, list or remove. A user with the role view sees everything; with the role
    operate, the user also changes nodes. Changes are in effect at once: the sessions of a
    removed user end.

    \b
        clusterer console-user add anna --role operate
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.services import Context
    from clusterer.services.admin import console_users as service

    with closing(Context(settings)) as context:
        if action == "list":
            _show(context, service.USER)
        elif action == "remove":
            service.remove(context, service.USER, _required(name))
            click.echo(f"User {name} removed.")
        else:
            name, role = _required(name), _role(role)
            service.add_user(context, name, role, _password(more["password_file"]))
            click.echo(f"User {name} added with the role {role}.")


@click.command(name="console-token")
@_account_command
@with_settings()
def console_token(settings: Settings, *, action: str, name: str | None, role: str | None) -> None:
    """Add, list or remove tokens, with which scripts use the console.

    ACTION is add, list or remove. add prints the token once, because Redis keeps only its hash.

    \b
        clusterer console-token add grafana --role view
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.services import Context
    from clusterer.services.admin import console_users as service

    with closing(Context(settings)) as context:
        if action == "list":
            _show(context, service.TOKEN)
        elif action == "remove":
            service.remove(context, service.TOKEN, _required(name))
            click.echo(f"Token {name} removed.")
        else:
            click.echo(service.add_token(context, _required(name), _role(role)))


def _required(name: str | None) -> str:
    if not name:
        raise click.UsageError("NAME is missing.")
    return name


def _role(role: str | None) -> str:
    if not role:
        raise click.UsageError("Missing option '--role': view or operate.")
    return role


def _password(path: Path | None) -> str:
    if path is None:
        if not sys.stdin.isatty():
            raise click.UsageError("Missing option '--password-file': no terminal to ask.")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        if str(path) == "-":
            text = sys.stdin.read(_MOST_FILE)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(_MOST_FILE)
    except OSError as error:
        raise ClustererError(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        raise ClustererError(f"{path} holds no UTF-8 text") from None
    return text.removesuffix("\n")


def _show(context: Context, kind: str) -> None:
    from clusterer.services.admin import console_users as service

    found = sorted(
        (each for each in service.read(context).accounts.values() if each.kind == kind),
        key=lambda each: each.name,
    )
    for account in found:
        click.echo(f"{account.name:<20} {account.role:<8} {stamp(account.since_ms / 1000)}")
