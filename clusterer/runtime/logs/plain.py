"""Text from other programs and users, made safe: it must not steer a terminal or begin a line."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^\s\"'<>]*@")
_OPTION = re.compile(r"(?<=password=)[^\s\"'&]+")


def plain(text: str, keep: str = "", instead: str = " ") -> str:
    """Return ``text`` with ``instead`` for control and other unprintable characters.

    The characters in ``keep`` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else instead for c in text)


def hidden(text: str) -> str:
    """Return ``text`` with *** for user and password of each URL in it.

    It guards texts of libraries and of the command line; texts of this project hold no secrets.
    """
    if "://" in text:
        text = _USER.sub(lambda found: _masked(found[0]), text)
    return _OPTION.sub("***", text) if "password=" in text else text


def _masked(user: str) -> str:
    masked = user.endswith(":***@") and user.count("@") == 1
    return user if masked or user == "***@" else "***@"
