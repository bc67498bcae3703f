"""What a node's row says of it."""

from __future__ import annotations

from dataclasses import dataclass

NO_PING_RETRIES = 3
"""How often an unanswered ping is repeated until the link is down: OpenSIPS's default."""

PRIORITY = 50
"""Priority of a node as next hop, unless the row says otherwise: OpenSIPS's default."""


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """One row of a cluster of OpenSIPS 3.x nodes."""

    url: str
    """``bin:127.0.0.21:5555``; not resolved."""
    sip_addr: str = ""
    """SIP address of the node, empty if the row has none."""
    priority: int = PRIORITY
    """Of two next hops with the same distance, the lower priority is taken."""
    no_ping_retries: int = NO_PING_RETRIES
    """How often an unanswered ping is repeated until the link is down."""
    enabled: bool = True
    """False: the row's state is 0. Not on the wire."""
