"""``clusterer console``: the console in a browser."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import click

from clusterer.cli.options import Number, parsed_by, require_web, with_settings
from clusterer.cli.processes import CONSOLE_PORT
from clusterer.errors import InvalidArgument
from clusterer.settings import Settings


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
