"""The page Packets: what an instance receives now, and the same packets as a recording."""

from __future__ import annotations

from typing import Any

from clusterer.console import query
from clusterer.console.console import Console
from clusterer.console.page import Download, File, Page, Parameters
from clusterer.errors import InvalidArgument
from clusterer.services.admin.packets import PacketFilter, as_json, words
from clusterer.services.admin.recording import as_text
from clusterer.services.admin.shared_tail import Captures

SHOWN = 100
"""Packets on the page, and in an answer of the API."""

_NO_CAPTURE = Captures(0, (), 0, 0, 0, 0)
"""The content without a chosen instance."""

_QUERY = ("receiver", "module", "node", "type", "until")


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return the newest packets that a filter selects, newest first."""
    wanted, until = _filter(parameters), query.whole(parameters, "until")
    receiver, instances = _receiver(console, parameters)
    seen = _NO_CAPTURE
    if receiver is not None:
        seen = console.tails.view(receiver, wanted, last=SHOWN, until=until)
    return {
        "receiver": receiver,
        "instances": instances,
        "filter": {name: query.text(parameters, name) for name in ("module", "node", "type")},
        "until": until,
        "packets": [
            {"number": each.number}
            | as_json(each.record)
            | {"text": _plain(words(each.record.packet))}
            for each in reversed(seen.packets)
        ],
        "selected": seen.selected,
        "kept": seen.kept,
        "newest": seen.seen,
        "lost": seen.lost,
        "trouble": seen.trouble,
    }


def download(console: Console, parameters: Parameters) -> File:
    """Return the packets that the filter selects as a recording."""
    receiver, _ = _receiver(console, parameters)
    if receiver is None:
        raise InvalidArgument("name the instance: receiver=N")
    until = query.whole(parameters, "until")
    seen = console.tails.view(receiver, _filter(parameters), until=until)
    records = [each.record for each in seen.packets]
    body = "".join(as_text(records)).encode()
    return File(body, "application/x-ndjson", f"instance-{receiver}.recording")


def _filter(parameters: Parameters) -> PacketFilter:
    return PacketFilter(
        query.words(parameters, "module"),
        query.machine_ids(parameters, "node"),
        query.types(parameters, "type"),
    )


def _receiver(console: Console, parameters: Parameters) -> tuple[int | None, list[int]]:
    """Return the chosen instance, or the only one, and all instances."""
    instances = console.captures.instances()
    chosen = query.id_of(parameters, "receiver")
    if chosen is None and len(instances) == 1:
        chosen = instances[0]
    return chosen, instances


def _plain(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


PAGE = Page("packets", "/packets", "Packets", load, "packets.html", query=_QUERY)
PAUSED = Page(
    "packets-paused",
    "/packets/paused",
    "Packets",
    load,
    "packets.html",
    live=False,
    in_menu=False,
    query=_QUERY,
)
RECORDING = Download("packets-recording", "/packets/recording", download, query=_QUERY)
