"""Inquiries: another process asks an instance for entries of its observers, over Redis.

An instance announces its listings (what its observers hold) while it runs. An inquiry names one
listing, a text and a number of entries; the answer has that many entries at the most. Both are
short-lived lists, so that nothing stays behind if one side ends.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from clusterer.store import keys
from clusterer.store.badvalues import bad, ids, number, text
from clusterer.store.client import Store, translated

ANNOUNCE_S = 3.0
"""An instance announces its listings so often."""
_ANNOUNCED_MS = 10_000

MOST_ENTRIES = 500
"""Most entries in an answer."""
MAX_TEXT = 200
"""Most characters of the text of an inquiry."""
MAX_ANSWER = 2_000_000
"""Most bytes of an answer."""

_MAX_INQUIRY = 4_000
_WAITING = 16
"""Inquiries that may wait for an instance; older ones are dropped."""
_LIFETIME_MS = 5_000
_TOKEN = re.compile(r"[0-9a-f]{32}")
_FIELD = re.compile(r"([a-z]{1,20}):([1-9]\d{0,9})", re.ASCII)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """A listing that an instance has."""

    kind: str
    """calls, contacts or profiles."""
    cluster_id: int
    entries: int

    @property
    def field(self) -> str:
        """Field of the listing in the instance's hash."""
        return f"{self.kind}:{self.cluster_id}"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question about one listing of an instance."""

    kind: str
    cluster_id: int
    text: str = ""
    """Text that the entries contain, in upper or lower case; empty: the newest entries."""
    most: int = MOST_ENTRIES
    token: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an instance."""

    entries: Sequence[Mapping[str, Any]]
    """Newest first: names and values of the columns, texts, numbers and None."""
    matching: int
    """Entries that contain the text; more than ``entries`` has if the answer is cut."""
    total: int
    """Entries of the listing."""
    at: float
    """UNIX seconds of the instance's clock."""


class InquiryStore(Store):
    """Both sides of inquiries. Safe to share between threads.

    Every method raises `StateUnavailable` when Redis does not answer in time.
    """

    # -- the instance's side --------------------------------------------------------------------

    def announce(self, receiver: int, listings: Iterable[Held]) -> None:
        """Replace the listings of an instance; they last for some seconds."""
        key = keys.listings(receiver)
        held: dict[Any, Any] = {each.field: each.entries for each in listings}
        with translated(self._settings, f"announce the listings of instance {receiver}"):
            pipe = self._client.pipeline(transaction=True)
            pipe.delete(key)
            if held:
                pipe.hset(key, mapping=held)
            pipe.pexpire(key, _ANNOUNCED_MS)
            pipe.execute()

    def next(self, receiver: int, wait_s: float) -> Inquiry | None:
        """Wait up to ``wait_s`` (below 1) for an inquiry; None without one."""
        key = keys.inquiries(receiver)
        with translated(self._settings, f"wait for inquiries of instance {receiver}"):
            found: Any = self._client.blpop([key], timeout=wait_s)
        return None if found is None else _inquiry(key, found[1])

    def answer(self, inquiry: Inquiry, answer: Answer) -> None:
        """Answer an inquiry, with fewer entries if they are more than `MAX_ANSWER` bytes."""
        key = keys.answer(inquiry.token)
        while len(packed := json.dumps(asdict(answer))) > MAX_ANSWER:
            answer = replace(answer, entries=answer.entries[: len(answer.entries) // 2])
        with translated(self._settings, "answer an inquiry"):
            pipe = self._client.pipeline(transaction=True)
            pipe.rpush(key, packed)
            pipe.pexpire(key, _LIFETIME_MS)
            pipe.execute()

    # -- the other side -------------------------------------------------------------------------

    def held(self) -> dict[int, list[Held]]:
        """Return the listings of all instances that have any."""
        what = "read the listings of the instances"
        (members,) = self._read(what, ("smembers", keys.INSTANCES))
        receivers = ids(keys.INSTANCES, members)
        hashes = self._read(what, *(("hgetall", keys.listings(i)) for i in receivers))
        found = {
            receiver: [each for item in fields.items() if (each := _held(receiver, *item))]
            for receiver, fields in zip(receivers, hashes, strict=True)
        }
        return {receiver: sorted(held, key=_order) for receiver, held in found.items() if held}

    def ask(self, receiver: int, inquiry: Inquiry, wait_s: float) -> Answer | None:
        """Ask an instance; None if it does not answer within about ``wait_s``."""
        key, answer = keys.inquiries(receiver), keys.answer(inquiry.token)
        with translated(self._settings, f"ask instance {receiver}"):
            pipe = self._client.pipeline(transaction=True)
            pipe.rpush(key, json.dumps(asdict(inquiry)))
            pipe.ltrim(key, -_WAITING, -1)
            pipe.pexpire(key, _LIFETIME_MS)
            pipe.execute()
            for _ in range(max(1, round(wait_s / _BLOCK_S))):
                found: Any = self._client.blpop([answer], timeout=_BLOCK_S)
                if found is not None:
                    return _answer(answer, found[1])
        return None


_BLOCK_S = 0.5
"""Longest block of a connection: below the client's timeout of one second."""


def _inquiry(key: str, value: bytes) -> Inquiry | None:
    found = _parsed(Inquiry, value, _MAX_INQUIRY)
    if found is None or not (
        all(isinstance(each, str) for each in (found.kind, found.text, found.token))
        and all(type(each) is int for each in (found.cluster_id, found.most))
        and _TOKEN.fullmatch(found.token)
    ):
        bad(key, "", value[:100], "an inquiry")
        return None
    most = min(max(found.most, 0), MOST_ENTRIES)
    return replace(found, text=found.text[:MAX_TEXT], most=most)


def _answer(key: str, value: bytes) -> Answer | None:
    found = _parsed(Answer, value, MAX_ANSWER)
    if found is None or not (
        isinstance(found.entries, list)
        and all(isinstance(each, dict) for each in found.entries)
        and all(type(each) is int for each in (found.matching, found.total))
        and isinstance(found.at, int | float)
    ):
        bad(key, "", value[:100], "an answer")
        return None
    return replace(found, entries=found.entries[:MOST_ENTRIES])


def _parsed(kind: type[T], value: bytes, most: int) -> T | None:
    if len(value) > most:
        return None
    try:
        return kind(**json.loads(value))
    except (ValueError, TypeError, RecursionError):
        return None


def _held(receiver: int, name: bytes, value: bytes) -> Held | None:
    key = keys.listings(receiver)
    found = _FIELD.fullmatch(text(name))
    if found is None:
        bad(key, f"field {text(name)}", value, "kind:cluster_id")
        return None
    return Held(found[1], int(found[2]), number(key, f"field {text(name)}", value))


def _order(held: Held) -> tuple[int, str]:
    return held.cluster_id, held.kind
