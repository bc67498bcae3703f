"""From a JSON-RPC body to its answer, whatever brought it."""

from __future__ import annotations

from clusterer.mi import MiError, Result, jsonrpc
from clusterer.services.mi.handler import Handler


async def answer(handler: Handler, body: bytes, via: str) -> bytes:
    """Carry out the calls in ``body``, one after the other; return the answer, empty if none
    is wanted.
    """
    message = jsonrpc.parse(body)
    outcomes: list[Result | MiError | None] = []
    for call in message.calls:
        if isinstance(call, jsonrpc.Call):
            outcomes.append(await handler.handle(call.command, via))
        else:
            outcomes.append(None)
    return jsonrpc.encode(message, outcomes)
