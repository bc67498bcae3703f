"""Which senders this worker claims, and which the worker releases for other workers."""

from __future__ import annotations

from collections import deque
from itertools import islice
from time import monotonic

from clusterer.delivery import shares
from clusterer.delivery.cluster_watch import ClusterWatch
from clusterer.delivery.handover import Handover
from clusterer.delivery.leases import Leases
from clusterer.store.sessions import SessionStore

LOOK_EVERY_S = 0.5
"""Longest time between two looks for senders without a worker."""

LOOK_COSTS = 10
"""The pause after a look, as a multiple of the time that the look took."""

OTHERS_FIRST_S = 0.4
"""Time in which workers with a smaller share may take a sender, before this one does."""

CLAIM_AT_ONCE = 16
"""Senders that one turn claims: the sessions that the worker has get their turn in between."""

JOIN_WITHIN_S = 2.0
"""How long a worker without senders waits for senders that other workers release."""

EXCHANGE_EVERY_S = 2.0
"""How often a full worker releases some senders, if other senders wait."""

KEEP_S = 60.0
"""How long a worker releases no senders for others, after no worker has claimed those released."""


class Claims:
    """Claims senders a few at a time, and keeps the worker's share equal to the others'.

    A full worker releases some senders every `EXCHANGE_EVERY_S` if other senders wait.
    """

    def __init__(
        self, store: SessionStore, leases: Leases, handover: Handover, watch: ClusterWatch
    ) -> None:
        self._store = store
        self._leases = leases
        self._handover = handover
        self._watch = watch
        self._wanted: deque[int] = deque()
        self._seen: dict[int, float] = {}
        """Since when senders have been seen without a worker (monotonic seconds)."""
        self._others: list[int] = []
        """How many senders each of the other workers has."""
        self._giving = False
        self._keep_until = 0.0
        self._look_at = self._not_before = self._join_until = self._exchange_at = 0.0

    @property
    def workers(self) -> int:
        """Number of workers of the queue that run."""
        return 1 + len(self._others)

    def begin(self) -> None:
        """Start a job: look for senders now; without any, wait for senders that others release."""
        self._wanted.clear()
        self._look_at = 0.0
        self._join_until = monotonic() + JOIN_WITHIN_S

    def again(self) -> None:
        """Look for senders soon."""
        self._look_at = min(self._look_at, self._not_before)

    def leave(self) -> None:
        """Tell the other workers that this worker ends."""
        self._store.share(None)

    def next_at(self) -> float:
        """Return when `turn` has something to do (monotonic seconds)."""
        return 0.0 if self._wanted else self._look_at

    def expects(self) -> bool:
        """Whether a worker without senders is about to get some."""
        if self._wanted or self._seen:
            return True
        return monotonic() < self._join_until and shares.lacks(len(self._leases), self._others)

    def turn(self) -> bool:
        """Do what is due; True if another worker is to be called."""
        call = False
        if monotonic() >= self._look_at:
            began = monotonic()
            call = self._look(began)
            ended = monotonic()
            self._look_at = ended + LOOK_EVERY_S
            self._not_before = ended + LOOK_COSTS * (ended - began)
        some = [self._wanted.popleft() for _ in range(min(CLAIM_AT_ONCE, len(self._wanted)))]
        self._leases.claim(some)
        for sender in some:
            self._seen.pop(sender, None)
        return call

    def _look(self, now: float) -> bool:
        pending = self._leases.pending()
        if pending:
            self._watch.refresh()
        allowed = self._leases.allowed(pending)
        unclaimed = self._leases.unclaimed(allowed)
        may_join = len(self._leases) or allowed
        self._others = self._store.share(len(self._leases) if may_join else None)
        self._seen = {sender: self._seen.get(sender, now) for sender in unclaimed}
        self._wanted = deque(self._choose(unclaimed, now))
        over = len(unclaimed) - self._leases.room
        if over > 0 and self._leases.full:
            self._exchange(over, now)
        return self._balance(now) or over > 0

    def _choose(self, unclaimed: list[int], now: float) -> list[int]:
        """Return the senders to claim: the worker's share, and senders that others have left."""
        room = shares.room(len(self._leases), self._others, len(unclaimed))
        late = {s for s in unclaimed if now - self._seen[s] >= OTHERS_FIRST_S}
        if self._others and any(self._leases.was_released(sender) for sender in late):
            self._keep_until = now + KEEP_S
        # The worker of a lease that has just run out may only be slow.
        slow = self._leases.run_out if self._others else ()
        now_free = (s for s in unclaimed if s not in late and s not in slow)
        fresh = set(islice(now_free, room))
        return [s for s in unclaimed if s in late or s in fresh][: self._leases.room]

    def _exchange(self, waiting: int, now: float) -> None:
        """Release some senders, so that senders that wait get their turn."""
        if now >= self._exchange_at:
            self._exchange_at = now + EXCHANGE_EVERY_S
            count = min(waiting, max(len(self._leases) // 8, 1))
            self._handover.release_each(self._leases.to_exchange(count))
            self._wanted = deque(islice(self._seen, count))
            self._look_at = 0.0

    def _balance(self, now: float) -> bool:
        """Release senders for workers with fewer; True if other workers have to claim them."""
        mine = len(self._leases)
        excess = shares.surplus(mine, self._others, giving=self._giving)
        if not excess or self._wanted or now < self._keep_until:
            self._giving = False
            return False
        count = shares.at_once(excess)
        self._giving = excess > count
        return self._handover.release_each(self._leases.spread(count))
