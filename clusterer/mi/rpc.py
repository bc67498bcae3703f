"""JSON-RPC: the calls in a body are carried out, their results are the answer."""

from __future__ import annotations

from typing import Protocol

from clusterer.mi import jsonrpc
from clusterer.mi.commands import Command, MiError, Result


class Handler(Protocol):
    """Carries out commands for one instance."""

    async def handle(self, command: Command, via: str) -> Result | MiError:
        """Return the result of ``command``; ``via`` names the transport, for the audit."""
        ...

    async def about(self, command: Command) -> dict[str, object]:
        """Return the fields of a log line about ``command``: those of its node, if it has one."""
        ...


async def answer(handler: Handler, body: bytes, via: str, limit: int | None = None) -> bytes:
    """Carry out the calls in ``body``, one after the other; return the answer, empty if none
    is wanted.

    ``limit``: bytes that can be sent; instead of a longer answer an error goes out.
    """
    message = jsonrpc.parse(body)
    outcomes: list[Result | MiError | None] = []
    for call in message.calls:
        if isinstance(call, jsonrpc.Call):
            outcomes.append(await handler.handle(call.command, via))
        else:
            outcomes.append(None)
    told = jsonrpc.encode(message, outcomes)
    if limit is None or len(told) <= limit:
        return told
    why = f"it has {len(told)} bytes, {limit} can be sent: ask over HTTP or the FIFO"
    return jsonrpc.encode(message, [MiError(500, "Answer too long", why)] * len(outcomes))
