"""``clusterer console``: the console in a browser."""

from __future__ import annotations

import logging

import click

from clusterer.cli.options import Number, with_settings
from clusterer.errors import ClustererError
from clusterer.settings import Settings

PORT = 8088


@click.command()
@click.option(
    "--address", metavar="IP", default="127.0.0.1", show_default=True, help="IP address to serve."
)
@click.option(
    "--port", metavar="N", type=Number(0, 65535), default=PORT, show_default=True, help="TCP port."
)
@with_settings(log_level=logging.INFO)
def console(settings: Settings, *, address: str, port: int) -> None:
    """Serve the console, which shows the clusters in a browser.

    The command runs until Ctrl-C. It needs the extra web: pip install 'clusterer[web]'.

    \b
        clusterer console --port 8088
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    try:
        from clusterer.console import server
    except ModuleNotFoundError as error:
        raise ClustererError(
            f"the console needs the extra web, {error.name} is missing: "
            "run `pip install 'clusterer[web]'`"
        ) from error
    server.serve(settings, server.Listen(address, port))
