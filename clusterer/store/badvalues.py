"""Bad values in Redis: readers name, count and skip each of them, and use the other values.

A reader calls `report` for each bad value. `read_all`, which every reader of many keys uses, finds
keys of a wrong type; `blame` finds them for scripts.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

import redis

from clusterer.ids import MAX_ID
from clusterer.runtime.logs import LimitedLog, plain
from clusterer.store.key_types import NAMES, expected_type, remedy

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""Interval between two log lines about the same value."""

T = TypeVar("T")

_SHOWN = 40
"""Characters of a value in messages."""

_PIPELINE = 1000
"""Commands sent at once."""

_SCANNED = 1000
"""Keys that one step of a scan looks at: about a millisecond of Redis's time."""

_DATA_ERRORS = re.compile(
    r"WRONGTYPE|not an integer|not a valid|not a float|would overflow|value is out of range"
    r"|attempt to |bad argument|Invalid stream ID|smaller than the target stream top item"
)
"""Errors of Redis about a stored value, not about the server or the connection."""


@dataclass(frozen=True, slots=True)
class BadValue:
    """A value in Redis that cannot be used."""

    key: str
    place: str
    """Place in the key: ``field state``, ``member``, ``entry 1-0``; empty for the key itself."""
    value: str
    """The value, shortened."""
    expected: str

    def __str__(self) -> str:
        return f"{self.described}; {self.remedy}"

    @property
    def described(self) -> str:
        """The key, the place, the value and the expected value."""
        place = f" {self.place}:" if self.place else ""
        return plain(f"key {self.key}{place} {self.value}, expected {self.expected}")

    @property
    def remedy(self) -> str:
        """Next action of the operator."""
        return plain(remedy(self.key))


Report = Callable[[BadValue], None]

_limited = LimitedLog(log, INTERVAL_S)
_lock = threading.Lock()
_count = 0
_heard: ContextVar[list[BadValue] | None] = ContextVar("bad values", default=None)


def seen() -> int:
    """Return the number of bad values that this process has skipped."""
    return _count


@contextmanager
def collected() -> Iterator[list[BadValue]]:
    """Collect the bad values that this thread reports inside, instead of logging them."""
    found: list[BadValue] = []
    token = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(token)


def report(bad: BadValue) -> None:
    """Count a bad value, and log it at a limited rate."""
    global _count  # noqa: PLW0603 - one number per process
    with _lock:
        _count += 1
    found = _heard.get()
    if found is not None:
        found.append(bad)
        return
    _limited.warning((bad.key, bad.place), monotonic(), "Redis: bad value skipped: %s", bad)


def bad(key: str, place: str, value: object, expected: str) -> None:
    """Report a bad value."""
    report(BadValue(key, place, shortened(value), expected))


def shortened(value: object) -> str:
    """Return a value as messages show it."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


class WrongTypeError(redis.ResponseError):
    """Names the key that made a command or script fail."""


def is_bad_data(error: object) -> bool:
    """Whether an error of Redis is about the content of a key, not about the server."""
    if not isinstance(error, redis.ResponseError):
        return False
    return isinstance(error, WrongTypeError) or bool(_DATA_ERRORS.search(str(error)))


_NUMBER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)
_ID = re.compile(r"[1-9]\d{0,9}", re.ASCII)
"""As we write them: one member is one id."""
_MOST_MS = 2**53

# -- parsing ------------------------------------------------------------------------------------


def number(key: str, place: str, value: bytes | str | None, default: int = 0) -> int:
    """Return a whole number that Redis sent; ``default`` for None or, reported, anything else."""
    if value is None:
        return default
    if _NUMBER.fullmatch(text(value)):
        return int(value)
    bad(key, place, value, "a whole number from 0")
    return default


def field_number(key: str, fields: Mapping[bytes, bytes], name: str, default: int = 0) -> int:
    """Return the `number` in a field of the hash ``key``, which Redis sent as ``fields``."""
    return number(key, f"field {name}", fields.get(name.encode()), default)


def ids(key: str, members: Iterable[Any]) -> list[int]:
    """Return the members of a set that are ids, in order; report the other members."""
    found = []
    for member in members:
        if _ID.fullmatch(text(member)) and int(member) <= MAX_ID:
            found.append(int(member))
        else:
            bad(key, "member", member, f"a whole number from 1 to {MAX_ID}")
    return sorted(found)


def times_of(key: str, members: Iterable[tuple[bytes, float]]) -> dict[int, int]:
    """Return the times in ms, by id, of a sorted set; report members that are no ids or times."""
    found = dict(members)
    usable = {}
    for member in ids(key, found):
        at = found[b"%d" % member]
        if 0 <= at <= _MOST_MS:
            usable[member] = int(at)
        else:
            bad(key, f"member {member}", at, "a time in ms")
    return usable


def text(value: bytes | str) -> str:
    r"""Return text, with ``\xff`` for a byte that is no text."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a hash that a script sent flat: field, value, ..."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def flat(fields: Mapping[str, str]) -> list[str]:
    """Return a hash as scripts take it: field, value, ..."""
    return [part for pair in fields.items() for part in pair]


# -- keys of a wrong type -----------------------------------------------------------------------

Command = tuple[Any, ...]
"""Name of a method of redis-py's pipeline, a key, further arguments."""


class WrongType:
    """Marks the empty value that replaces a key of a wrong type."""


class _WrongSet(WrongType, frozenset[Any]):
    pass


class _WrongHash(WrongType, dict[Any, Any]):
    pass


_NOTHING: dict[str, Callable[[], Any]] = {
    "get": lambda: None,
    "smembers": _WrongSet,
    "hgetall": _WrongHash,
    "hkeys": list,
    "hget": lambda: None,
    "hmget": list,
    "zrange": list,
    "zscore": lambda: None,
    "zmscore": list,
    "sismember": lambda: 0,
    "xrevrange": list,
    "xrange": list,
    "scard": lambda: 0,
    "xlen": lambda: 0,
    "srandmember": list,
    "smismember": WrongType,
}


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield ``items`` in lists of at most ``size``."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def read_all(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Return the replies to commands that read one key each, in few round trips.

    `read_all` reports a key of a wrong type, and returns the reply of a missing key; for sets and
    hashes this reply is a `WrongType`. Raises other errors.
    """
    replies: list[Any] = []
    for some in batches(commands, _PIPELINE):
        pipe = client.pipeline(transaction=False)
        for name, *arguments in some:
            getattr(pipe, name)(*arguments)
        replies += pipe.execute(raise_on_error=False)
    wrong = [at for at, reply in enumerate(replies) if isinstance(reply, Exception)]
    for at in wrong:
        if not is_bad_data(replies[at]):
            raise replies[at]
    blame(client, [str(commands[at][1]) for at in wrong])
    for at in wrong:
        replies[at] = _NOTHING[commands[at][0]]()
    return replies


def scan(client: redis.Redis, pattern: str) -> Iterator[str]:
    """Yield the names of the keys like ``pattern``, some maybe twice. Takes a scan of all keys."""
    return map(text, client.scan_iter(match=pattern, count=_SCANNED))


def wrong_types(client: redis.Redis, names: Sequence[str]) -> list[BadValue]:
    """Return those of ``names`` that hold a wrong type; one round trip."""
    if not names:
        return []
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
    kinds = [text(kind) for kind in pipe.execute()]
    return [
        BadValue(name, "", f"holds {NAMES.get(kind, kind)}", NAMES[wanted])
        for name, kind in zip(names, kinds, strict=True)
        if (wanted := expected_type(name)) and kind not in ("none", wanted)
    ]


def blame(client: redis.Redis, names: Sequence[str]) -> list[BadValue]:
    """Report those of ``names`` that hold a wrong type, and return them."""
    found = wrong_types(client, names)
    for each in found:
        report(each)
    return found


def replaced(names: Iterable[bytes | str]) -> None:
    """Report keys that a script replaced: of another type than they have to be, or exhausted."""
    for name in map(text, names):
        bad(name, "", "could not be used, replaced", NAMES[expected_type(name)])


_MOST_KEYS = 20_000
"""Most keys that `wrong_keys` checks: some 100 ms. Real clusters have fewer keys."""


def wrong_keys(client: redis.Redis) -> list[BadValue]:
    """Return the keys that hold a wrong type. Takes a scan."""
    names = islice(scan(client, "clusterer:*"), _MOST_KEYS)
    return [wrong for batch in batches(names, _PIPELINE) for wrong in wrong_types(client, batch)]
