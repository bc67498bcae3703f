"""Replies of Redis as docs/redis-keys/ shows them, and as a client gets them, made comparable."""

from __future__ import annotations

import re

from tests.support import docs

Reply = bytes | str | int | float | list["Reply"] | tuple["Reply", ...] | dict["Reply", "Reply"]


def on_page(key: str) -> list[str]:
    """Return all strings of the reply that the page shows, in order."""
    (block,) = docs.blocks(docs.key_section(key), "console")
    return re.findall(r'(?m)^[ \d)]*"(.*)"$', block.partition("\n")[2])


def received(reply: object) -> list[str]:
    """Return all strings of a reply in order, however a client has nested them."""
    if isinstance(reply, bytes):
        return [reply.decode("utf-8", "backslashreplace")]
    if isinstance(reply, str):
        return [reply]
    if isinstance(reply, dict):
        reply = list(reply.items())
    if isinstance(reply, list | tuple | set):
        return [text for item in reply for text in received(item)]
    return [f"{reply:g}" if isinstance(reply, float) else str(reply)]


def shape(text: str) -> str:
    """Return ``text`` without numbers and ids: what it is made of."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "<id>", text)
    return re.sub(r"\d+(\.\d+)?(e\+\d+)?", "<n>", text)
