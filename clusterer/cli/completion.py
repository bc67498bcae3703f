"""Completion of ids from Redis in the shell.

An error of Redis prints nothing: a message would land in the middle of a command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from clusterer.errors import ClustererError
from clusterer.settings.sources import load_settings

if TYPE_CHECKING:
    from clusterer.membership import Node


def clusters(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the cluster_ids in Redis."""
    return _matching(incomplete, {node.cluster_id: "" for node in _nodes(context)})


def machine_ids(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the machine_ids of the cluster that the command line names, or of all."""
    return _matching(incomplete, {node.machine_id: _about(node) for node in _nodes(context)})


def protocols(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the protocols of the node that the command line names."""
    wanted = context.params.get("node")
    found = {node.protocol: "" for node in _nodes(context) if wanted in (None, node.machine_id)}
    return _matching(incomplete, found)


def _matching(incomplete: str, found: dict[int, str] | dict[str, str]) -> list[CompletionItem]:
    return [
        CompletionItem(str(value), help=about)
        for value, about in sorted(found.items())
        if str(value).startswith(incomplete)
    ]


def _about(node: Node) -> str:
    # fish's part of click ends a description at a comma.
    text = f"{node.url} {node.condition.value} {node.description or ''}"
    return " ".join(text.replace(",", " ").split())


def _nodes(context: click.Context) -> Iterator[Node]:
    """Yield the nodes of the cluster on the command line, or of all; none after an error."""
    from clusterer.services import Context

    given = context.params
    named = {name: given.get(name) for name in ("redis_url", "data_dir")}
    assigned = dict(text.split("=", 1) for text in given.get("assignments") or () if "=" in text)
    try:
        settings = load_settings(assigned | named, config=given.get("config"), warn=str)
        with closing(Context(settings)) as services:
            views = services.nodes.views()
    except ClustererError:
        return
    for view in views.values():
        if given.get("cluster") in (None, view.key.cluster_id):
            yield from view.nodes.values()
