"""The ``clusterer`` command, and the modules of its subcommands, which it loads on use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields

import click
from click.shell_completion import CompletionItem

from clusterer.cli import loading
from clusterer.settings import Settings

_NAMES = ", ".join(item.name for item in fields(Settings))

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("demo:demo", "Watch two instances replicate, one die and come back."),
    "up": ("processes:up", "Run all processes of one host, until Ctrl-C."),
    "init-db": ("table:init_db", "Create the provisioning table, as OpenSIPS 2.2 expects it."),
    "reload": ("table:reload", "Load the provisioning table into Redis."),
    "node-add": ("provision:node_add", "Add a node to the table, in effect at once."),
    "node-edit": ("provision:node_edit", "Change a node's row in the table, in effect at once."),
    "node-remove": ("provision:node_remove", "Remove a node from the table, in effect at once."),
    "import": ("table:import_", "Import FILE (- for stdin) into the table, in effect at once."),
    "export": ("table:export", "Write the table to FILE, or to stdout."),
    "list": ("nodes:list_nodes", "Show all nodes of all clusters, and the packets sent to them."),
    "top": ("live.commands:top", "Show all nodes live: state, backlog, traffic."),
    "watch": ("live.commands:watch", "Follow one node: state, backlog, traffic, events."),
    "paths": ("nodes:paths", "Show which senders do not reach which nodes, since when, and why."),
    "set-status": ("nodes:set_status", "Take a node down (STATUS 0) or up (STATUS 1)."),
    "events": ("events:events", "Show the changes of nodes: time, states, author and reason."),
    "forget": ("nodes:forget", "Delete what Redis keeps of a machine_id that is no longer used."),
    "ping": ("processes:ping", "Check that this host's processes make progress."),
    "doctor": ("doctor:doctor", "Check Redis, table, processes, clocks, addresses, backlog."),
    "mi": ("mi:mi", "Serve OpenSIPS's management interface (MI), until Ctrl-C."),
    "tail": ("packets:tail", "Show the packets that an instance receives, until Ctrl-C."),
    "replay": ("packets:replay", "Send a recording again, to one node or to a cluster."),
    "console": ("console:console", "Serve the console, which shows the clusters in a browser."),
    "console-user": ("console:console_user", "Add, list or remove users of the console."),
    "console-token": (
        "console:console_token",
        "Add, list or remove tokens, with which scripts use the console.",
    ),
    "node": ("node:node", "Run one instance until SIGTERM or Ctrl-C."),
    "worker": ("processes:worker", "Run an RQ worker until SIGTERM or Ctrl-C."),
    "scheduler": ("processes:scheduler", "Run the scheduler of the periodic jobs."),
}
"""The module of each command below `clusterer.cli`, and the first line of its help, in the order of
`--help`. `--help` and the completion of a command's name need only this table."""


class Commands(click.Group):
    """Imports the module of a command at the first use of the command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        with loading():
            command = getattr(importlib.import_module(f"clusterer.cli.{module}"), name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=about)
            for name, (_, about) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            word = args[0].removeprefix("clusterer_").replace("_", "-")  # MI's form of a name
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
    """Clusters of instances over OpenSIPS 2.2's binary protocol (BIN).

    clusterer replicates packets between the nodes of a cluster, and detects the nodes
    that fail. `clusterer demo` shows all of it at work.
    """
