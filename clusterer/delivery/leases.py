"""The senders whose logs this worker delivers: leases are claimed, renewed and lost."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic

from clusterer.delivery.connector import Connector
from clusterer.delivery.context import Context
from clusterer.delivery.placement import HOLD_S, Holds, Placement
from clusterer.delivery.session import SenderSession
from clusterer.membership.views import Views, rows_of
from clusterer.runtime.logs import about_machine_id
from clusterer.store.deliveries import LEASE_MS, Claim
from clusterer.store.log_reads import SenderUnusable

log = logging.getLogger(__name__)

MAX_SENDERS = 4096
"""Senders that one worker has at a time; other workers claim further senders, or these wait."""

RENEW_EVERY_S = LEASE_MS / 4000
WRITE_WITHIN_S = LEASE_MS / 1000 * 0.8
"""Time after a renewal was sent in which the worker may write: shorter than the lease."""


class Leases:
    """All sessions of a running job."""

    def __init__(self, context: Context, connector: Connector) -> None:
        self._context = context
        self._store = context.store
        self._connector = connector
        self._placement = Placement(anywhere=context.settings.allow_foreign_source)
        self._sessions: dict[int, SenderSession] = {}
        self._claimed: dict[int, int] = {}
        """Senders with a lease and still without a session: the numbers of their claims."""
        self._leased: set[int] = set()
        """Senders that other workers had at the last look."""
        self._by_log: dict[str, SenderSession] = {}
        self._write_until = 0.0
        self._paths_counters: Mapping[int, int] | None = None
        """The counters of path records in the last renewal, until `follow_paths` uses them."""
        self._recorded: set[int] = set()
        """Senders whose sessions have path records."""
        self.holds = Holds()
        self.run_out: set[int] = set()
        """Senders whose lease had run out at the last look: the worker died, or was stopped."""
        self._released_at: dict[int, float] = {}
        """When this worker released senders that were still pending (monotonic seconds)."""
        self.renew_at = 0.0
        """When the leases are to be renewed (monotonic seconds)."""

    def __iter__(self) -> Iterator[SenderSession]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def full(self) -> bool:
        """Whether this worker takes no more senders."""
        return len(self._sessions) >= MAX_SENDERS

    @property
    def refused(self) -> bool:
        """Whether this worker has seen senders that it may not claim."""
        return bool(self._placement.refused or self.holds)

    def __contains__(self, session: SenderSession) -> bool:
        return self._sessions.get(session.sender) is session

    def of_log(self, name: str) -> SenderSession | None:
        """Return the session of a log, by its Redis key."""
        return self._by_log.get(name)

    @property
    def room(self) -> int:
        """How many more senders this worker takes."""
        return max(MAX_SENDERS - len(self._sessions), 0)

    def pending(self) -> list[int]:
        """Return the pending senders that this worker does not have."""
        return [sender for sender in self._store.pending() if sender not in self._sessions]

    def allowed(self, senders: list[int]) -> list[int]:
        """Return those of ``senders`` that this worker may deliver for."""
        views = self._context.views
        return [s for s in senders if s not in self.holds and self._placement.allows(s, views)]

    def unclaimed(self, senders: list[int]) -> list[int]:
        """Return those of ``senders`` without a lease; the ones released here come last."""
        leased = self._store.leased(senders)
        found = [sender for sender in senders if sender not in leased]
        late = [sender for sender in found if sender in self._leased]
        self.run_out = set(late) - self._store.handed_over(late)
        self._leased = leased | self.run_out
        self._released_at = {s: self._released_at[s] for s in found if s in self._released_at}
        return sorted(found, key=lambda sender: (self._released_at.get(sender, 0.0), sender))

    def was_released(self, sender: int) -> bool:
        """Whether this worker released the pending sender, and no worker has claimed it since."""
        return sender in self._released_at

    def claim(self, senders: list[int]) -> None:
        """Take ``senders``, as far as other workers have not taken them meanwhile."""
        if not senders:
            return
        self.renew()
        asked_at = monotonic()
        claims = self._store.claim_all(senders)
        found = [claim for claim in claims if isinstance(claim, Claim)]
        if found:
            self._context.clock.tell(found[0].now_ms, asked_at)
        if not self._sessions:
            self._write_until = asked_at + WRITE_WITHIN_S
            self.renew_at = asked_at + RENEW_EVERY_S
        self._claimed = {claim.sender: claim.number for claim in found}
        if any(self._may_skip(claim, self._context.views) for claim in found):
            # The nodes' state after the claim decides about its packets.
            self._context.directory.refresh()
        for claim in claims:
            self.renew()  # claims take time: the first sessions must not lose their leases
            if isinstance(claim, SenderUnusable):
                self.hold(claim.sender, str(claim))
            elif claim is not None and claim.sender in self._claimed:
                del self._claimed[claim.sender]
                self._take_or_hold(claim)

    def _may_skip(self, claim: Claim, views: Views) -> bool:
        """Whether a gate may be closed for the sender of this claim."""
        rosters = self._context.rosters
        return bool(claim.paths) or any(rosters.of(key, views).down for key in claim.counts)

    def _take_or_hold(self, claim: Claim) -> None:
        try:
            self._take(claim)
        except SenderUnusable as error:
            self.hold(error.sender, str(error))

    def to_exchange(self, count: int) -> list[SenderSession]:
        """Return ``count`` sessions that make room: idle ones first, then those taken first."""
        order = sorted(self, key=lambda session: (session.busy(), session.taken_at))
        return order[:count]

    def spread(self, count: int) -> list[SenderSession]:
        """Return ``count`` sessions, busy and idle ones alike."""
        sessions = list(self)
        step = max(len(sessions) / max(count, 1), 1.0)
        return [sessions[int(at * step)] for at in range(min(count, len(sessions)))]

    def renew(self, *, force: bool = False) -> None:
        """Renew all leases if that is due; abandon the sessions whose lease is lost."""
        sent_at = monotonic()
        if sent_at < self.renew_at and not force:
            return
        self.renew_at = sent_at + RENEW_EVERY_S
        if not (self._sessions or self._claimed):
            return
        claims = {sender: session.claim_number for sender, session in self._sessions.items()}
        claims |= self._claimed
        # After a delay the leases may have run out, and no other worker has claimed the logs. A
        # lease that is gone before its end was taken away.
        run_out = sent_at >= self._write_until
        renewed = self._store.renew(list(claims), claims if run_out else None)
        for sender in renewed.lost:
            self._claimed.pop(sender, None)
            if sender in self._sessions:
                self.lose(self._sessions[sender])
        self._write_until = sent_at + WRITE_WITHIN_S
        self._context.clock.tell(renewed.now_ms, sent_at)
        self._paths_counters = renewed.paths_counters

    def follow_paths(self) -> None:
        """Read the path records that changed before the last renewal, and judge all gates again.

        Does so once after each renewal. To be called between two turns: a peer must not change its
        group while a batch is offered to the group.
        """
        counters, self._paths_counters = self._paths_counters, None
        if counters is None or not (counters or self._recorded):
            return
        senders = [s for s in {*counters, *self._recorded} if s in self._sessions]
        sessions = [self._sessions[sender] for sender in senders]
        old = [session.sender for session in sessions if session.has_old_paths(counters)]
        for sender, records in (self._context.paths.all_records(old) if old else {}).items():
            if sender in self._sessions:
                self._sessions[sender].take_paths(records, records.counter)
        for session in sessions:
            session.judge()
        self._recorded = {session.sender for session in sessions if session.gates}

    def may_write(self, session: SenderSession) -> bool:
        """Whether the lease certainly holds; renews the lease first if its time has run out."""
        if monotonic() < self._write_until:
            return True
        self.renew(force=True)
        return session in self and monotonic() < self._write_until

    def commit(self, sessions: Iterable[SenderSession], *, trim: bool = False) -> None:
        """Record what was delivered; abandon the sessions whose lease is lost."""
        due = list(sessions)
        if due and monotonic() >= self._write_until:
            self.renew(force=True)
        held = (session for session in due if session in self)
        commits = [found for session in held if (found := session.take_commit(trim=trim))]
        if commits:
            for sender in self._store.commit(commits):
                self.lose(self._sessions[sender])

    def lose(self, session: SenderSession) -> None:
        """Give up a session whose lease another worker has taken."""
        if session in self:
            log.warning(
                "sender %s: lease lost; another worker delivers",
                session.sender,
                extra=self._about(session.sender),
            )
            self._abandon(session)

    def hold(self, sender: int, reason: str) -> None:
        """Deliver no packets of a sender for `HOLD_S`: its values in Redis are wrong."""
        session = self._sessions.get(sender)
        if session is not None:
            self._abandon(session)
        wrong = "; ".join(self._store.wrong_keys(sender))
        if self.holds.add(sender, wrong or reason):
            log.error(
                "sender %s: no deliveries: %s; delete or repair the named values, "
                "the worker looks again every %.0f s",
                sender,
                f"{wrong} ({reason})" if wrong else reason,
                HOLD_S,
                extra=self._about(sender),
            )

    def drop(self, session: SenderSession) -> None:
        """Forget a session that was released."""
        del self._sessions[session.sender]
        del self._by_log[session.log]
        self._context.agenda.drop(session)

    def _abandon(self, session: SenderSession) -> None:
        """Forget a session, and close its connections at once."""
        self.drop(session)
        self._connector.close_all(session)

    def note_released(self, session: SenderSession) -> None:
        """Note that a session was released with packets left: other senders come first."""
        self._released_at[session.sender] = monotonic()

    def abandon_all(self) -> None:
        """Forget all sessions, and close their connections at once; their leases expire."""
        for session in self:
            self._abandon(session)

    def _take(self, claim: Claim) -> None:
        sender = claim.sender
        session = SenderSession(claim, self._context, self._context.views)
        self._sessions[sender] = self._by_log[session.log] = session
        self._context.agenda.add(session)
        if session.gates:
            self._recorded.add(sender)
        if session.members.stale_destinations():
            # Refresh first: a destination that the snapshot lacks may be a node that is new.
            self._context.directory.refresh()
            session.update(self._context.views)
            self._store.forget(sender, session.members.stale_destinations())
        if session.clamped:
            log.warning(
                "sender %s: %s committed offsets were ahead of the end of the log, %s: "
                "Redis has lost packets",
                sender,
                session.clamped,
                claim.tail,
                extra=self._about(sender),
            )

    def _about(self, sender: int) -> dict[str, object]:
        return about_machine_id(sender, rows_of(sender, self._context.views))
