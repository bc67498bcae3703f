"""The streams that wake a prober: its own, and one of each cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from clusterer.endpoint import TIMEOUT_S
from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import is_bad_data, replaced, text, wrong_types
from clusterer.store.client import translated

MOST_S = 0.8 * TIMEOUT_S
"""One call waits no longer: the reply must arrive before the client gives up."""


class ProberRings:
    """The rings of one prober. For one thread; `ring` is safe in any thread."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client = client
        self._last: dict[Any, Any] = {}
        """By stream, the id of the last entry that is known."""

    def listen(self, machine_id: int, clusters: Sequence[ClusterKey]) -> None:
        """Listen to the rings of a prober; a ring that is new here rings at once if it has rung."""
        names = [keys.prober_ring(machine_id), *(keys.probers_ring(*key) for key in clusters)]
        self._last = {name: self._last.get(name, "0") for name in names}

    def forget(self) -> None:
        """Treat all entries as new: Redis was away, and may have lost its data."""
        self._last = dict.fromkeys(self._last, "0")

    def wait(self, timeout_s: float) -> bool:
        """Wait until a ring rings, for up to ``timeout_s``; return whether one has rung."""
        block_ms = int(min(timeout_s, MOST_S) * 1000)
        with translated(self._settings, "wait for suspicions"):
            try:
                found: Any = self._client.xread(
                    self._last, count=1, block=block_ms if block_ms > 0 else None
                )
            except redis.ResponseError as error:
                if not is_bad_data(error):
                    raise
                self._delete([wrong.key for wrong in wrong_types(self._client, list(self._last))])
                return True
        for name, entries in found:
            self._last[text(name)] = text(entries[-1][0])
        return bool(found)

    def _delete(self, wrong: Sequence[str]) -> None:
        """Delete rings of a wrong type: a ring is of use for some seconds only."""
        if wrong:
            self._client.delete(*wrong)
            replaced(wrong)
            self._last |= dict.fromkeys(wrong, "0")

    def ring(self, machine_id: int) -> None:
        """Wake one prober."""
        with translated(self._settings, "add an entry to the ring of a prober"):
            self._client.xadd(
                keys.prober_ring(machine_id), {"ring": 1}, maxlen=1, approximate=False
            )
