"""What the observers of instances hold: asked of the instance, once for all viewers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from math import inf
from time import monotonic

from clusterer.errors import ClustererError
from clusterer.services.context import Context
from clusterer.store.inquiries import Answer, Held, Inquiry, InquiryStore

AGE_S = 2.0
"""Age from which on an answer is asked again."""
STALE_S = 60.0
"""Age up to which an old answer is returned while the instance does not answer."""
WAIT_S = 2.5
"""Longest wait for an answer."""
MOST_ANSWERS = 32
"""Answers that are kept; of the others the instance is asked again."""

_Key = tuple[int, str, int, str, int]


class Listings:
    """The listings of all instances, and entries of them. Safe to use from any thread."""

    def __init__(self, context: Context) -> None:
        self._store = InquiryStore(context.settings, context.redis)
        self._lock = threading.Lock()
        self._turns: dict[int, threading.Lock] = {}
        self._answers: OrderedDict[_Key, tuple[float, Answer]] = OrderedDict()

    def held(self) -> dict[int, list[Held]]:
        """Return what the observers of each instance hold; instances without any are left out.

        Raises `StateUnavailable`.
        """
        return self._store.held()

    def entries(self, receiver: int, kind: str, cluster_id: int, text: str, most: int) -> Answer:
        """Return the newest entries of a listing that contain ``text``.

        One inquiry at a time goes to an instance; an answer serves all viewers for `AGE_S`.
        If the instance does not answer, an older answer serves, for up to `STALE_S`. Raises
        `ClustererError` without any answer, and `StateUnavailable`.
        """
        key = receiver, kind, cluster_id, text, most
        found = self._known(key, AGE_S)
        if found is not None:
            return found
        with self._lock:
            turn = self._turns.setdefault(receiver, threading.Lock())
        if turn.acquire(timeout=WAIT_S):
            try:
                if self._known(key, AGE_S) is None:
                    self._ask(key)
            finally:
                turn.release()
        found = self._known(key, STALE_S)
        if found is None:
            raise ClustererError(
                f"instance {receiver} did not answer within {WAIT_S:g} s: the instance is busy, "
                "or does not run; try again"
            )
        return found

    def _ask(self, key: _Key) -> None:
        receiver, kind, cluster_id, text, most = key
        answer = self._store.ask(receiver, Inquiry(kind, cluster_id, text, most), WAIT_S)
        if answer is None:
            return
        with self._lock:
            self._answers[key] = monotonic(), answer
            self._answers.move_to_end(key)
            while len(self._answers) > MOST_ANSWERS:
                self._answers.popitem(last=False)

    def _known(self, key: _Key, age_s: float) -> Answer | None:
        with self._lock:
            asked_at, answer = self._answers.get(key, (-inf, None))
        return answer if monotonic() - asked_at < age_s else None
