"""The ``clusterer`` command and where its subcommands are; each is loaded when it is used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import fields

import click

from clusterer.cli import loading
from clusterer.settings import Settings

_NAMES = ", ".join(item.name for item in fields(Settings))

COMMANDS: Mapping[str, str] = {
    "demo": "clusterer.cli.demo.command:demo",
    "up": "clusterer.cli.up:up",
    "init-db": "clusterer.cli.table:init_db",
    "reload": "clusterer.cli.table:reload",
    "node-add": "clusterer.cli.provision:node_add",
    "node-edit": "clusterer.cli.provision:node_edit",
    "node-remove": "clusterer.cli.provision:node_remove",
    "import": "clusterer.cli.transfer:import_",
    "export": "clusterer.cli.transfer:export",
    "list": "clusterer.cli.nodes:list_nodes",
    "top": "clusterer.cli.live.top:top",
    "watch": "clusterer.cli.live.watch:watch",
    "set-status": "clusterer.cli.nodes:set_status",
    "events": "clusterer.cli.events:events",
    "forget": "clusterer.cli.forget:forget",
    "ping": "clusterer.cli.ping:ping",
    "doctor": "clusterer.cli.doctor:doctor",
    "mi": "clusterer.cli.mi:mi",
    "tail": "clusterer.cli.traffic:tail",
    "replay": "clusterer.cli.traffic:replay",
    "node": "clusterer.cli.node:node",
    "worker": "clusterer.cli.others:worker",
    "scheduler": "clusterer.cli.others:scheduler",
}
"""Where each command is, in the order in which `--help` shows them."""


class Commands(click.Group):
    """Imports a command's module only when that command, or help, is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        with loading():
            command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            word = args[0].removeprefix("clusterer_").replace("_", "-")  # as MI has it
            meant = difflib.get_close_matches(word, COMMANDS, 1)
            if not meant:
                raise
            text = f"{error.message} Did you mean '{meant[0]}'?"
            raise click.UsageError(text, error.ctx) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog=f"""Settings come from (the later wins) defaults, a TOML file (--config or
    CLUSTERER_CONFIG), variables CLUSTERER_NAME, and --set NAME=VALUE or the options of
    each command. Their names: {_NAMES}.""",
)
@click.version_option(package_name="clusterer", message="%(prog)s %(version)s")
def cli() -> None:
    """Clusters that speak OpenSIPS 2.2's binary protocol.

    Groups instances into clusters, replicates packets between them, and watches which
    of them can be reached. New here? Try `clusterer demo`.
    """
