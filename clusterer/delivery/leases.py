"""The senders whose logs this worker drains: taken, kept, and given up when the lease is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from clusterer.delivery.agenda import Agenda
from clusterer.delivery.drain import Drain
from clusterer.delivery.holds import HOLD_S, Holds
from clusterer.delivery.meter import Meter
from clusterer.delivery.roster import Rosters, Views
from clusterer.delivery.sources import all_local, own_rows
from clusterer.runtime.logs import about_machine
from clusterer.settings import BACKLOG_REPLAY, Settings
from clusterer.store import Directory
from clusterer.store.deliveries import LEASE_MS, Claim
from clusterer.store.drains import DrainStore
from clusterer.store.usable import SenderUnusable

log = logging.getLogger(__name__)

MAX_SENDERS = 4096
"""Senders that one worker has at a time; what is more is left to other workers, or waits."""

RENEW_EVERY_S = LEASE_MS / 4000
WRITE_WITHIN_S = LEASE_MS / 1000 * 0.8
"""Time after the sending of a renewal in which may be written: shorter than the lease itself."""


class Leases:
    """All drains of a running job.

    ``abandon`` is called with a drain whose lease is lost: it must close all its connections.
    """

    def __init__(
        self,
        settings: Settings,
        store: DrainStore,
        abandon: Callable[[Drain], None],
        agenda: Agenda,
        meter: Meter | None = None,
    ) -> None:
        self._anywhere = settings.allow_foreign_source
        self._replay = settings.backlog == BACKLOG_REPLAY
        self._store = store
        self._abandon = abandon
        self._agenda = agenda
        self._meter = meter
        self._rosters = Rosters()
        self._drains: dict[int, Drain] = {}
        self._claimed: dict[int, int] = {}
        """Senders whose lease was just taken, and whose drain is still to be made: their claims."""
        self._leased: set[int] = set()
        """Senders that other workers had at the last look."""
        self._by_log: dict[str, Drain] = {}
        self._write_until = 0.0
        self._refused: set[int] = set()
        self.holds = Holds()
        self._rowless: set[int] = set()
        """Senders without a row, of which it was said."""
        self.run_out: set[int] = set()
        """Senders whose worker lost its lease, or was stopped for too long, at the last look."""
        self._views: Views = {}
        self._given_at: dict[int, float] = {}
        """When this worker gave senders back that were not drained (monotonic seconds)."""
        self.renew_at = 0.0
        """When the leases are to be renewed (monotonic seconds)."""

    def __iter__(self) -> Iterator[Drain]:
        return iter(tuple(self._drains.values()))

    def __len__(self) -> int:
        return len(self._drains)

    @property
    def full(self) -> bool:
        """Whether this worker takes no more senders."""
        return len(self._drains) >= MAX_SENDERS

    @property
    def refused(self) -> bool:
        """Whether senders were seen that may not be claimed here."""
        return bool(self._refused or self.holds)

    def __contains__(self, drain: Drain) -> bool:
        return self._drains.get(drain.sender) is drain

    def of_log(self, name: str) -> Drain | None:
        """Return the drain of a log, by its Redis key."""
        return self._by_log.get(name)

    @property
    def room(self) -> int:
        """How many more senders this worker takes."""
        return max(MAX_SENDERS - len(self._drains), 0)

    def pending(self) -> list[int]:
        """Return the senders with an undrained log that this worker does not have."""
        return [sender for sender in self._store.pending() if sender not in self._drains]

    def allowed(self, senders: list[int], directory: Directory) -> list[int]:
        """Return those of ``senders`` that this worker may deliver for."""
        self._views = directory.snapshot
        return [s for s in senders if s not in self.holds and self._may_deliver(s, self._views)]

    def unclaimed(self, senders: list[int]) -> list[int]:
        """Return those of ``senders`` without a lease; those that this worker had come last."""
        leased = self._store.leased(senders)
        found = [sender for sender in senders if sender not in leased]
        late = [sender for sender in found if sender in self._leased]
        self.run_out = set(late) - self._store.handed_over(late)
        self._leased = leased | self.run_out
        self._given_at = {s: self._given_at[s] for s in found if s in self._given_at}
        return sorted(found, key=lambda sender: (self._given_at.get(sender, 0.0), sender))

    def was_given(self, sender: int) -> bool:
        """Whether this worker gave the sender back, and no worker has taken it since."""
        return sender in self._given_at

    def claim(self, senders: list[int], directory: Directory) -> None:
        """Take ``senders``, as far as other workers have not taken them meanwhile."""
        if not senders:
            return
        self.renew()
        asked_at = monotonic()
        claims = self._store.claim_all(senders)
        if not self._drains:
            self._write_until = asked_at + WRITE_WITHIN_S
            self.renew_at = asked_at + RENEW_EVERY_S
        self._claimed = {claim.sender: claim.number for claim in claims if isinstance(claim, Claim)}
        if any(self._has_nodes_down(claim, directory.snapshot) for claim in claims):
            directory.refresh()  # what the logs have is judged by the nodes' state after the claim
        for claim in claims:
            self.renew()  # those that were taken first must not wait for the last one
            if isinstance(claim, SenderUnusable):
                self.hold(claim.sender, str(claim))
            elif claim is not None and claim.sender in self._claimed:
                del self._claimed[claim.sender]
                self._take_or_hold(claim, directory)

    def _has_nodes_down(self, claim: Claim | SenderUnusable | None, views: Views) -> bool:
        keys = claim.counts if isinstance(claim, Claim) else ()
        return any(self._rosters.of(key, views).down for key in keys)

    def _take_or_hold(self, claim: Claim, directory: Directory) -> None:
        try:
            self._take(claim, directory)
        except SenderUnusable as error:
            self.hold(error.sender, str(error))

    def to_exchange(self, count: int) -> list[Drain]:
        """Return ``count`` drains that make room: idle ones first, then those taken first."""
        order = sorted(self, key=lambda drain: (drain.busy(), drain.taken_at))
        return order[:count]

    def spread(self, count: int) -> list[Drain]:
        """Return ``count`` drains from all over: other workers get busy and idle senders alike."""
        drains = list(self)
        step = max(len(drains) / max(count, 1), 1.0)
        return [drains[int(at * step)] for at in range(min(count, len(drains)))]

    def renew(self, *, force: bool = False) -> None:
        """Renew all leases if that is due; abandon the drains whose lease is lost."""
        sent_at = monotonic()
        if sent_at < self.renew_at and not force:
            return
        self.renew_at = sent_at + RENEW_EVERY_S
        if not (self._drains or self._claimed):
            return
        claims = {sender: drain.claim_number for sender, drain in self._drains.items()}
        claims |= self._claimed
        # A worker that was slow may find its leases run out, and no other worker with them. One
        # that goes before its time was taken away.
        run_out = sent_at >= self._write_until
        for sender in self._store.renew(list(claims), claims if run_out else None):
            self._claimed.pop(sender, None)
            if sender in self._drains:
                self.lose(self._drains[sender])
        self._write_until = sent_at + WRITE_WITHIN_S

    def may_write(self, drain: Drain) -> bool:
        """Whether the lease certainly still holds; it is renewed if time has run out."""
        if monotonic() < self._write_until:
            return True
        self.renew(force=True)
        return drain in self and monotonic() < self._write_until

    def commit(self, drains: Iterable[Drain], *, trim: bool = False) -> None:
        """Record what was delivered; abandon the drains whose lease is lost."""
        due = list(drains)
        if due and monotonic() >= self._write_until:
            self.renew(force=True)
            due = [drain for drain in due if drain in self]
        commits = [found for drain in due if (found := drain.take_commit(trim=trim))]
        if commits:
            for sender in self._store.commit(commits):
                self.lose(self._drains[sender])

    def lose(self, drain: Drain) -> None:
        """Give up a drain whose lease is somebody else's by now."""
        if drain in self:
            log.warning(
                "machine %s: lease lost, another worker delivers",
                drain.sender,
                extra=self._about(drain.sender),
            )
            self.drop(drain)
            self._abandon(drain)

    def hold(self, sender: int, reason: str) -> None:
        """Leave a sender alone for a while, as Redis has something wrong of it."""
        drain = self._drains.get(sender)
        if drain is not None:
            self.drop(drain)
            self._abandon(drain)
        wrong = "; ".join(self._store.wrong_keys(sender))
        if self.holds.add(sender, wrong or reason):
            log.error(
                "sender %s: no deliveries: %s; delete or repair what is named, "
                "the worker looks again every %.0f s",
                sender,
                f"{wrong} ({reason})" if wrong else reason,
                HOLD_S,
                extra=self._about(sender),
            )

    def drop(self, drain: Drain) -> None:
        """Forget a drain that was given back."""
        del self._drains[drain.sender]
        del self._by_log[drain.log]
        self._agenda.drop(drain)

    def gave(self, drain: Drain) -> None:
        """Note that a drain was given back with packets left: other senders come first."""
        self._given_at[drain.sender] = monotonic()

    def abandon_all(self) -> None:
        """Give up everything at once; leases run out by themselves."""
        for drain in self:
            self.drop(drain)
            self._abandon(drain)

    def _take(self, claim: Claim, directory: Directory) -> None:
        sender = claim.sender
        drain = Drain(
            claim,
            self._store,
            directory.snapshot,
            replay=self._replay,
            rosters=self._rosters,
            meter=self._meter,
            changed=self._agenda.note,
        )
        self._drains[sender] = self._by_log[drain.log] = drain
        self._agenda.add(drain)
        if drain.stale_fields():
            # Not the other way round: nodes that have come since the snapshot was taken.
            directory.refresh()
            drain.update(directory.snapshot)
            self._store.forget(sender, drain.stale_fields())
        if drain.clamped:
            log.warning(
                "machine %s: %s cursors were ahead of its log's end, %s: Redis has lost packets",
                sender,
                drain.clamped,
                claim.tail,
                extra=self._about(sender),
            )

    def _may_deliver(self, sender: int, views: Views) -> bool:
        if self._anywhere:
            return True
        hosts = {node.host for node in own_rows(sender, views)}
        if not hosts and sender not in self._rowless:
            self._rowless.add(sender)
            log.warning(
                "machine %s has no row in the table: nodes that check who sends drop its packets",
                sender,
                extra=self._about(sender),
            )
        if all_local(hosts):
            self._refused.discard(sender)
            return True
        if sender not in self._refused:
            self._refused.add(sender)
            log.warning(
                "not delivering for machine %s: its address %s is not one of this host; "
                "its packets wait for a delivery worker there",
                sender,
                ", ".join(sorted(hosts)),
                extra=self._about(sender),
            )
        return False

    def _about(self, sender: int) -> dict[str, object]:
        return about_machine(sender, own_rows(sender, self._views))
