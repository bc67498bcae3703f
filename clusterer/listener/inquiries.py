"""Answers inquiries about what an instance's observers hold, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from clusterer.errors import StateUnavailable
from clusterer.runtime import forks
from clusterer.runtime.rounds import Rounds
from clusterer.store.inquiries import ANNOUNCE_S, Answer, Held, Inquiry, InquiryStore

Value = str | int | None

SHARE = 0.2
"""Most of one core that answers may take: after an answer the thread rests."""

_WAIT_S = 0.9
_AWAY_S = 1.0
_LONGEST_REST_S = 2.0
_STOP_S = 2.0
_AT_ONCE = 500
"""Entries that are searched without a pause, so that the listener's loop gets its turns."""
_PAUSE_S = 0.001
_MAX_VALUE = 300
"""Characters of a text in an answer."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A table of an instance, of which other processes may see entries."""

    kind: str
    """Lower-case letters: calls, contacts, profiles."""
    count: Callable[[], int]
    entries: Callable[[], Sequence[Any]]
    """Returns a copy of the entries, latest put last."""
    haystack: Callable[[Any], bytes]
    """Returns all texts of an entry, in which a search looks."""
    shown: Callable[[Any], dict[str, Value]]
    """Returns the columns of an entry."""


class Inquiries:
    """The listings of an instance, and the thread that answers inquiries about them.

    Without a listing there is no thread, and no command to Redis.
    """

    def __init__(self, server_id: int, store: InquiryStore) -> None:
        self._server_id = server_id
        self._store = store
        self._listings: dict[tuple[str, int], Listing] = {}
        self._lock = forks.lock()
        self._serving = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, cluster_id: int, listing: Listing) -> None:
        """Announce a listing from now on; it replaces one of the same kind and cluster."""
        with self._lock:
            self._listings = {**self._listings, (listing.kind, cluster_id): listing}
            self._begin()

    def start(self) -> None:
        """Begin to answer, once there is a listing."""
        with self._lock:
            self._serving = True
            self._begin()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._store.close()

    def _begin(self) -> None:
        if self._serving and self._listings and self._thread is None:
            name = "clusterer-inquiries"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    # -- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        rounds = Rounds("inquiries")
        announced = -ANNOUNCE_S
        while not self._stopping.is_set():
            with rounds.guard():
                try:
                    if time.monotonic() - announced >= ANNOUNCE_S:
                        announced = time.monotonic()
                        self._store.announce(self._server_id, self._held())
                    self._serve_one()
                    continue
                except StateUnavailable:
                    announced = -ANNOUNCE_S  # the listener logs that Redis is unavailable
            self._stopping.wait(_AWAY_S)
        with suppress(StateUnavailable):
            self._store.announce(self._server_id, ())

    def _held(self) -> list[Held]:
        return [
            Held(kind, cluster_id, listing.count())
            for (kind, cluster_id), listing in self._listings.items()
        ]

    def _serve_one(self) -> None:
        inquiry = self._store.next(self._server_id, _WAIT_S)
        if inquiry is None:
            return
        listing = self._listings.get((inquiry.kind, inquiry.cluster_id))
        if listing is None:
            return
        began = time.thread_time()
        self._store.answer(inquiry, answered(listing, inquiry))
        busy_s = time.thread_time() - began
        self._stopping.wait(min(busy_s / SHARE, _LONGEST_REST_S))


def answered(listing: Listing, inquiry: Inquiry) -> Answer:
    """Return the newest entries of a listing that contain the text of an inquiry."""
    entries = listing.entries()
    total = len(entries)
    wanted = inquiry.text.encode("utf-8", "surrogateescape").lower()
    if wanted:
        entries = list(_matching(listing, entries, wanted))
    newest = islice(reversed(entries), inquiry.most)
    shown = [{name: _plain(value) for name, value in listing.shown(e).items()} for e in newest]
    return Answer(shown, len(entries), total, time.time())


def _matching(listing: Listing, entries: Sequence[Any], wanted: bytes) -> Iterator[Any]:
    for number, entry in enumerate(entries, 1):
        if wanted in listing.haystack(entry).lower():
            yield entry
        if not number % _AT_ONCE:
            time.sleep(_PAUSE_S)


def _plain(value: Value) -> Value:
    """Return a bounded value; a text gets replacement characters for bytes that are not UTF-8."""
    if not isinstance(value, str):
        return value
    return value[:_MAX_VALUE].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
