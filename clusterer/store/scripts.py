"""The Lua scripts: one file each in ``lua/``, run by hash, loaded when Redis lacks them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis

from clusterer.store.badvalues import WrongTypeError, bad, blame, is_bad_data, wrong_types

_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)
"""The line that stands for ``lua/include/<name>.lua``, which may have such lines as well."""


class Script:
    """One Lua script; its file's header names KEYS, ARGV and reply."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: list[str], *arguments: Any) -> Any:
        """Run the script atomically and return its reply."""
        try:
            return self._run(client, keys, arguments)
        except redis.ResponseError as error:
            if is_bad_data(error) and (wrong := wrong_types(client, keys)):
                raise WrongTypeError(wrong[0]) from error
            raise

    def _run(self, client: redis.Redis, keys: list[str], arguments: Sequence[Any]) -> Any:
        try:
            return client.evalsha(self.sha, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)


@cache
def script(name: str) -> Script:
    """Return the script of ``lua/<name>.lua``."""
    return Script(_text(f"{name}.lua"))


def _text(*path: str) -> str:
    text = files("clusterer.store").joinpath("lua", *path).read_text("utf-8").rstrip("\n")
    return _INCLUDE.sub(lambda found: _text("include", f"{found[1]}.lua"), text)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script; `run_each` makes several."""

    script: str
    keys: Sequence[str]
    arguments: Sequence[Any]

    def run(self, client: redis.Redis) -> Any:
        """Make the call alone, and return its reply."""
        return script(self.script)(client, list(self.keys), *self.arguments)


def run_each(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    """Run calls of scripts, each a transaction of its own, in one round trip; return their replies.

    `run_each` reports a call that fails because of a bad value in its keys, and returns None as its
    reply. Raises any other error.
    """
    pipe = client.pipeline(transaction=False)
    names = sorted({call.script for call in calls})
    for name in names:
        pipe.script_load(script(name).text)
    for call in calls:
        pipe.evalsha(script(call.script).sha, len(call.keys), *call.keys, *call.arguments)
    replies = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not is_bad_data(reply):
            raise reply
    replies = replies[len(names) :]
    for at, reply in enumerate(replies):
        if isinstance(reply, Exception):
            replies[at] = None
            if not blame(client, calls[at].keys):
                bad(calls[at].keys[0], "", reply, "what its script can use")
    return replies
