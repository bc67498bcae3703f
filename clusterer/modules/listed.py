"""The columns of calls, profile counts and contacts that other processes may see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clusterer.listener import Listing
from clusterer.payloads import CallState
from clusterer.payloads.message import as_bytes, as_text

if TYPE_CHECKING:
    from clusterer.modules.dialog import Call, ProfileUse
    from clusterer.modules.usrloc import Contact

_STATES = {
    CallState.UNCONFIRMED: "unconfirmed",
    CallState.EARLY: "early",
    CallState.CONFIRMED_NO_ACK: "answered, no ACK",
    CallState.CONFIRMED: "answered",
}


def calls(count: Callable[[], int], entries: Callable[[], Sequence[Call]]) -> Listing:
    """Return the listing of a table of calls."""
    return Listing(
        "calls",
        count,
        entries,
        haystack=lambda call: b"\0".join(
            (
                call.sent.call_id,
                call.sent.from_uri,
                call.sent.to_uri,
                call.sent.caller_contact,
                call.sent.callee_contact,
            )
        ),
        shown=lambda call: {
            "node": call.machine_id,
            "call_id": call.call_id,
            "from_uri": call.from_uri,
            "to_uri": call.to_uri,
            "state": _STATES.get(call.sent.state, f"state {call.sent.state}"),
            "started": call.started or None,
            "expires": call.sent.expires or None,
        },
    )


def profiles(count: Callable[[], int], entries: Callable[[], Sequence[ProfileUse]]) -> Listing:
    """Return the listing of a table of profile counts, each of one node."""
    return Listing(
        "profiles",
        count,
        entries,
        haystack=lambda use: as_bytes(f"{use.profile}\0{use.value or ''}"),
        shown=lambda use: {
            "node": use.machine_id,
            "profile": use.profile,
            "value": use.value,
            "calls": use.calls,
        },
    )


def contacts(count: Callable[[], int], entries: Callable[[], Sequence[Contact]]) -> Listing:
    """Return the listing of a table of contacts."""
    return Listing(
        "contacts",
        count,
        entries,
        haystack=lambda contact: b"\0".join(
            (
                contact.sent.domain,
                contact.sent.aor,
                contact.sent.contact,
                contact.sent.user_agent,
                contact.sent.received,
            )
        ),
        shown=lambda contact: {
            "node": contact.machine_id,
            "domain": contact.domain,
            "aor": contact.aor,
            "uri": contact.uri,
            "user_agent": contact.user_agent,
            "received": as_text(contact.sent.received),
            "expires": contact.expires or None,
        },
    )
