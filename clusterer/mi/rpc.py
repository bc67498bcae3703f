"""From a JSON-RPC body to its answer, whatever brought it."""

from __future__ import annotations

from clusterer.mi import MiError, Result, jsonrpc
from clusterer.mi.handler import Handler


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
