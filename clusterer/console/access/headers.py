"""The headers that every answer has, also one that uvicorn makes."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

ALWAYS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

STATIC = "public, max-age=31536000, immutable"
"""For static files: their URLs change with their content."""


def with_caching(send: Send, *, static: bool) -> Send:
    """Return ``send`` that has static files cached, and no other answer."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Cache-Control"] = STATIC if static and message["status"] < 400 else "no-store"
        await send(message)

    return wrapped
