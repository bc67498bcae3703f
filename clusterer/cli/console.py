"""``clusterer console``, ``console-user`` and ``console-token``: the console and its accounts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clusterer.cli.options import (
    FILE,
    Number,
    parsed_by,
    require_web,
    with_context,
    with_options,
    with_settings,
)
from clusterer.cli.processes import CONSOLE_PORT
from clusterer.cli.text import stamp
from clusterer.errors import ClustererError, InvalidArgument, file_errors
from clusterer.settings import Settings

if TYPE_CHECKING:
    from clusterer.services import Context

_MOST_FILE = 65_536
"""Bytes of a file with a password."""


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidArgument(f"{text!r} is no IP address") from None


def _networks(_context: click.Context, _parameter: click.Parameter, texts: Iterable[str]) -> Any:
    import ipaddress

    try:
        return tuple(str(ipaddress.ip_network(text)) for text in texts)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@click.command()
@click.option(
    "--address",
    metavar="IP",
    default="127.0.0.1",
    show_default=True,
    callback=parsed_by(_address),
    help="IP address on which to serve; an address that is not loopback needs users.",
)
@click.option(
    "--port",
    metavar="N",
    type=Number(0, 65535),
    default=CONSOLE_PORT,
    show_default=True,
    help="TCP port; 0: a free port.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    metavar="IP",
    multiple=True,
    callback=_networks,
    help="IP address or network of a proxy whose X-Forwarded headers are trusted.",
)
@with_settings(log_level=logging.INFO, with_origins=True)
def console(
    settings: Settings,
    *,
    address: str,
    port: int,
    trusted_proxies: tuple[str, ...],
    origins: dict[str, str],
) -> None:
    """Serve the console, which shows the clusters in a browser.

    The command runs until Ctrl-C, and needs the extra web: pip install 'clusterer[web]'.
    Without users the console shows everything to each user of this host, and changes nothing.

    \b
        clusterer console --port 8088
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    require_web()
    from clusterer.console import server

    server.serve(settings, server.Listen(address, port, trusted_proxies), origins)


_with_account = with_options(
    click.argument("action", metavar="ACTION", type=click.Choice(["add", "list", "remove"])),
    click.argument("name", required=False),
    click.option("--role", type=click.Choice(["view", "operate"]), help="Role; for add."),
)


@click.command(name="console-user")
@_with_account
@click.option(
    "--password-file",
    metavar="FILE",
    type=FILE,
    help="File with the password; - for stdin. By default the command prompts for the password.",
)
@with_context
def console_user(context: Context, password_file: Path | None, **account: Any) -> None:
    """Add, list or remove users of the console.

    ACTION is add, list or remove. A user with the role view sees everything; with the role
    operate, the user also changes nodes. Changes are in effect at once: the sessions of a
    removed user end.

    \b
        clusterer console-user add anna --role operate
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.services.admin import console_users as service
    from clusterer.store.console_users import USER

    def add(name: str, role: str) -> None:
        service.add_user(context, name, role, _password(password_file))
        click.echo(f"User {name} added with the role {role}.")

    _carry_out(context, USER, add, **account)


@click.command(name="console-token")
@_with_account
@with_context
def console_token(context: Context, **account: Any) -> None:
    """Add, list or remove tokens, with which scripts use the console.

    ACTION is add, list or remove. add prints the token once, because Redis keeps only its hash.

    \b
        clusterer console-token add grafana --role view
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.services.admin import console_users as service
    from clusterer.store.console_users import TOKEN

    def add(name: str, role: str) -> None:
        click.echo(service.add_token(context, name, role))

    _carry_out(context, TOKEN, add, **account)


def _carry_out(
    context: Context,
    kind: str,
    add: Callable[[str, str], None],
    *,
    action: str,
    name: str | None,
    role: str | None,
) -> None:
    """Carry out the action of a command for the accounts of one kind."""
    from clusterer.services.admin import console_users as service

    if action == "list":
        accounts = [each for each in service.read(context).accounts.values() if each.kind == kind]
        for each in sorted(accounts, key=lambda each: each.name):
            click.echo(f"{each.name:<20} {each.role:<8} {stamp(each.since_ms / 1000)}")
        return
    if not name:
        raise click.UsageError("NAME is missing.")
    if action == "remove":
        service.remove(context, kind, name)
        click.echo(f"{kind.capitalize()} {name} removed.")
        return
    if not role:
        raise click.UsageError("Missing option '--role': view or operate.")
    add(name, role)


def _password(path: Path | None) -> str:
    if path is None:
        if not sys.stdin.isatty():
            raise click.UsageError("Missing option '--password-file': no terminal to ask.")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        with file_errors("read", path):
            if str(path) == "-":
                text = sys.stdin.read(_MOST_FILE)
            else:
                with path.open(encoding="utf-8") as file:
                    text = file.read(_MOST_FILE)
    except ValueError:
        raise ClustererError(f"{path} holds no UTF-8 text") from None
    return text.removesuffix("\n")
