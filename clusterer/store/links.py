"""Links of 3.x clusters in Redis: what each instance sees as a member of such a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterer.ids import MAX_ID
from clusterer.store import keys
from clusterer.store.badvalues import bad, ids, text
from clusterer.store.client import Store, translated

RENEW_S = 3.0
"""An instance renews its links so often."""
_LIFETIME_MS = 10_000

STATES = ("up", "probe", "down")
"""States of a link, as OpenSIPS 3.x names them."""

_MOST_NODES = 128
"""Nodes of one cluster of OpenSIPS 3.x, as its source limits them."""
_MAX_VALUE = 65_536
_MAX_SINCE = 253_402_300_799
"""The last second of the year 9999, where the calendar of Python ends."""
_FIELD = re.compile(r"([1-9]\d{0,9})/([1-9]\d{0,9})", re.ASCII)

Place = tuple[int, int]
"""cluster_id and machine_id of a node."""


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """What an instance knows of one node of a 3.x cluster."""

    state: str
    """State of the instance's own link to the node: one of `STATES`."""
    since: float
    """When the link got this state: UNIX seconds of the instance's clock."""
    next_hop: int | None = None
    """The node by which packets reach it: itself, another node, or None for a node out of reach."""
    neighbours: tuple[int, ...] = ()
    """The nodes to which it has a link that is up, as it last said."""
    capabilities: Mapping[str, int] = field(default_factory=dict)
    """Capabilities that it announced: 1 if it has all data of the capability, else 0."""


class LinkStore(Store):
    """Writes and reads links. Every method raises `StateUnavailable` if Redis does not answer."""

    def write(self, receiver: int, links: Mapping[Place, LinkRecord]) -> None:
        """Replace the links of an instance; they last for some seconds unless renewed."""
        key = keys.links(receiver)
        fields: dict[Any, Any] = {_field(place): _value(link) for place, link in links.items()}
        with translated(self._settings, f"write the links of instance {receiver}"):
            pipe = self._client.pipeline(transaction=True)
            pipe.delete(key)
            if fields:
                pipe.hset(key, mapping=fields)
                pipe.pexpire(key, _LIFETIME_MS)
            pipe.execute()

    def renew(self, receiver: int) -> bool:
        """Let the links of an instance last on; False if Redis has none."""
        with translated(self._settings, f"renew the links of instance {receiver}"):
            return bool(self._client.pexpire(keys.links(receiver), _LIFETIME_MS))

    def links(self) -> dict[int, dict[Place, LinkRecord]]:
        """Return the links of all instances that have any, by instance and node.

        A value that cannot be used is reported and left out.
        """
        what = "read the links of the instances"
        (members,) = self._read(what, ("smembers", keys.INSTANCES))
        receivers = ids(keys.INSTANCES, members)
        hashes = self._read(what, *(("hgetall", keys.links(each)) for each in receivers))
        found = {
            receiver: dict(sorted(_links(receiver, fields).items()))
            for receiver, fields in zip(receivers, hashes, strict=True)
        }
        return {receiver: links for receiver, links in found.items() if links}


def _field(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _value(link: LinkRecord) -> str:
    return json.dumps(
        {
            "state": link.state,
            "since": round(link.since, 3),
            "next_hop": link.next_hop,
            "neighbours": link.neighbours,
            "capabilities": dict(link.capabilities),
        }
    )


def _links(receiver: int, fields: Mapping[bytes, bytes]) -> dict[Place, LinkRecord]:
    key, found = keys.links(receiver), {}
    for name, value in fields.items():
        place = _FIELD.fullmatch(text(name))
        link = _link(value)
        if place is None:
            bad(key, "field", name, "cluster_id/machine_id")
        elif link is None:
            bad(key, f"field {text(name)}", value, "a link")
        else:
            found[int(place[1]), int(place[2])] = link
    return found


def _link(value: bytes) -> LinkRecord | None:
    """Return the link of a value, None for one that is none."""
    if len(value) > _MAX_VALUE:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    state, since, hop = (found.get(name) for name in ("state", "since", "next_hop"))
    neighbours, capabilities = found.get("neighbours"), found.get("capabilities")
    if not (
        state in STATES
        and isinstance(since, int | float)
        and not isinstance(since, bool)
        and 0 <= since <= _MAX_SINCE
        and (hop is None or _is_id(hop))
        and isinstance(neighbours, list)
        and len(neighbours) <= _MOST_NODES
        and all(map(_is_id, neighbours))
        and isinstance(capabilities, dict)
        and all(ok in {0, 1} and type(ok) is int for ok in capabilities.values())
    ):
        return None
    return LinkRecord(state, since, hop, tuple(neighbours), capabilities)


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_ID
