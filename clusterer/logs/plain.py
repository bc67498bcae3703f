"""Text that others wrote, as it may be shown: it must not steer a terminal, nor begin a line."""

from __future__ import annotations


def plain(text: str, keep: str = "", instead: str = " ") -> str:
    """Return ``text`` with ``instead`` for control characters and all else that has no shape.

    ``keep``: characters that stay as they are in any case.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else instead for c in text)
