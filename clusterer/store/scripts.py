"""The Lua scripts: one file each in ``lua/``, run by hash, loaded when Redis lacks them."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis

_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)
"""The line at which a script gets the functions of ``lua/include/<name>.lua``."""


class Script:
    """One Lua script; its file's header names KEYS, ARGV and reply."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: list[str], *arguments: Any) -> Any:
        """Run the script atomically and return its reply."""
        try:
            return client.evalsha(self.sha, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)


@cache
def script(name: str) -> Script:
    """Return the script of ``lua/<name>.lua``."""
    return Script(_INCLUDE.sub(lambda found: _text("include", found[1]), _text(name)))


def _text(*path: str) -> str:
    where = files("clusterer.store").joinpath("lua", *path[:-1], f"{path[-1]}.lua")
    return where.read_text("utf-8").rstrip("\n")
