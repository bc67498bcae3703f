"""The page Calls and contacts: what the observers of an instance hold."""

from __future__ import annotations

from typing import Any

from clusterer.console import query
from clusterer.console.console import Console
from clusterer.console.page import Page, Parameters
from clusterer.errors import ClustererError
from clusterer.store.inquiries import Answer, Held

SHOWN = 100
"""Entries on the page, and in an answer of the API."""

KINDS = ("calls", "contacts", "profiles")


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return all listings of all instances, and the newest entries of the chosen one."""
    held = console.listings.held()
    find = query.text(parameters, "find")
    receiver, chosen = _chosen(held, parameters)
    answer, trouble = _entries(console, receiver, chosen, find)
    return {
        "listings": [
            {
                "receiver": each,
                "kind": listing.kind,
                "cluster_id": listing.cluster_id,
                "entries": listing.entries,
            }
            for each, listings in sorted(held.items())
            for listing in listings
        ],
        "receiver": receiver,
        "kind": chosen and chosen.kind,
        "cluster_id": chosen and chosen.cluster_id,
        "find": find,
        "entries": list(answer.entries),
        "matching": answer.matching,
        "total": answer.total,
        "at": answer.at or None,
        "trouble": trouble,
    }


def _entries(
    console: Console, receiver: int | None, chosen: Held | None, find: str
) -> tuple[Answer, str]:
    """Return the newest entries of a listing, and why the instance did not answer, if so."""
    if chosen is None or receiver is None:
        return Answer((), 0, 0, 0.0), ""
    try:
        kind, cluster_id = chosen.kind, chosen.cluster_id
        return console.listings.entries(receiver, kind, cluster_id, find, SHOWN), ""
    except ClustererError as error:
        return Answer((), 0, chosen.entries, 0.0), str(error)


def _chosen(held: dict[int, list[Held]], parameters: Parameters) -> tuple[int | None, Held | None]:
    """Return the listing that the parameters name; of what they leave open, the first."""
    kind = query.choice(parameters, "kind", KINDS)
    wanted = [query.id_of(parameters, name) for name in ("receiver", "cluster")]
    for receiver, listings in sorted(held.items()):
        for listing in listings:
            if (
                wanted[0] in (None, receiver)
                and wanted[1] in (None, listing.cluster_id)
                and kind in ("", listing.kind)
            ):
                return receiver, listing
    return wanted[0], None


PAGE = Page(
    "calls",
    "/calls",
    "Calls and contacts",
    load,
    "calls.html",
    query=("receiver", "cluster", "kind", "find"),
)
