"""``clusterer mi``: OpenSIPS's management interface."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import DIRECTORY, operator, parsed_by, with_settings
from clusterer.errors import InvalidArgument
from clusterer.settings import Settings, require_server_id

if TYPE_CHECKING:
    from clusterer.mi.listen_address import Address

_DIRECTORIES = (Path("/run/clusterer"), Path("/tmp"))  # noqa: S108 - where opensipsctl looks


def default_fifo() -> Path:
    """Return the default path of the request FIFO: in /tmp only if /run/clusterer is not writable.

    In /tmp any local user may take the name first.
    """
    usable = (path for path in _DIRECTORIES if os.access(path, os.W_OK | os.X_OK))
    return next(usable, _DIRECTORIES[-1]) / "opensips_fifo"


def _address(text: str) -> Address | None:
    from clusterer.mi.listen_address import parse_address

    return parse_address(text) if text else None


def _mode(text: str) -> int:
    if not text or len(text) > 4 or set(text) - set("01234567"):
        raise InvalidArgument(f"{text!r} is not octal, such as 0660")
    return int(text, 8)


def _owner(text: str) -> tuple[int, int]:
    """Return uid and gid; -1 for a part that is empty."""
    user, _, group = text.partition(":")
    try:
        uid = -1 if not user else int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidArgument(f"{text!r}: no such user or group") from None
    return uid, gid


@click.command()
@click.option(
    "--fifo",
    metavar="PATH",
    type=click.Path(readable=False),
    show_default="/run/clusterer/opensips_fifo where it can be made, else /tmp/opensips_fifo",
    help="Path of the request FIFO; empty: none.",
)
@click.option(
    "--reply-dir",
    metavar="DIR",
    type=DIRECTORY,
    default="/tmp",  # noqa: S108 - where opensipsctl makes its reply FIFOs
    show_default=True,
    help="Directory in which clients make their reply FIFOs.",
)
@click.option(
    "--http",
    metavar="ADDRESS",
    callback=parsed_by(_address),
    help="Address on which to serve JSON-RPC over HTTP: POST /mi.",
)
@click.option(
    "--datagram",
    metavar="ADDRESS",
    callback=parsed_by(_address),
    help="Address on which to serve JSON-RPC in datagrams.",
)
@click.option(
    "--mode",
    metavar="OCTAL",
    default="0660",
    show_default=True,
    callback=parsed_by(_mode),
    help="Octal permissions of the FIFO and the unix sockets.",
)
@click.option(
    "--owner",
    metavar="USER[:GROUP]",
    callback=parsed_by(_owner),
    help="Owner of the FIFO and the unix sockets.",
)
@with_settings(log_level=logging.INFO)
def mi(
    settings: Settings,
    *,
    fifo: str | None,
    reply_dir: Path,
    http: Address | None,
    datagram: Address | None,
    mode: int,
    owner: tuple[int, int] | None,
) -> None:
    """Serve OpenSIPS's management interface (MI), until Ctrl-C.

    Clients can give the commands clusterer_reload, clusterer_list and clusterer_set_status: over
    a FIFO, as `opensipsctl fifo` does, and as JSON-RPC 2.0, as OpenSIPS 3's tools do. ADDRESS
    is the path of a unix socket, with --mode and --owner, or [IP:]PORT. Any user of this host
    can use a PORT, any host an IP:PORT. --server-id names the instance that answers.

    \b
        clusterer mi --server-id 1 --http /run/clusterer/mi_http.sock
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.mi.listen_address import Access
    from clusterer.mi.serve import Options, serve
    from clusterer.runtime.stop import stop_on_signals
    from clusterer.services import Context
    from clusterer.services.admin.mi_commands import MiCommands

    require_server_id(settings)
    options = Options(
        fifo=default_fifo() if fifo is None else Path(fifo) if fifo else None,
        reply_dir=reply_dir,
        http=http,
        datagram=datagram,
        access=Access(mode, *(owner or (-1, -1))),
    )
    with (
        closing(Context(settings)) as context,
        closing(MiCommands(context, operator())) as commands,
        stop_on_signals() as stop,
    ):
        serve(commands, options, stop)
