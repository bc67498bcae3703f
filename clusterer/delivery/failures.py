"""Failed attempts of the senders of a worker: each becomes a record, and opens a suspicion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clusterer.delivery.peer import Peer
from clusterer.delivery.session import SenderSession
from clusterer.membership import Event, Node, State
from clusterer.membership.suspicions import Kind
from clusterer.store import Cause, Directory, NodeStore
from clusterer.store.badvalues import batches
from clusterer.store.client import Clock
from clusterer.store.paths import AT_ONCE, Observation, PathStore, Reply
from clusterer.store.probers import ProberHere
from clusterer.store.suspicions import Opened, SuspicionStore


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed."""

    session: SenderSession
    peer: Peer
    node: Node
    """The node as it was when the attempt began."""
    reason: str
    began_at: float
    """When the attempt began (monotonic seconds)."""

    @property
    def cause(self) -> Cause:
        """The failure as the cause of a change of the node."""
        return Cause(f"delivery of sender {self.session.sender}", self.reason)


class Failures:
    """Failures since the last report: many nodes that fail together cost few calls."""

    def __init__(
        self,
        nodes: NodeStore,
        paths: PathStore,
        suspicions: SuspicionStore,
        directory: Directory,
        clock: Clock,
    ) -> None:
        self._nodes = nodes
        self._paths = paths
        self._suspicions = suspicions
        self._directory = directory
        self._clock = clock
        self._prober = ProberHere()
        self._noted: dict[SenderSession, list[Failure]] = {}
        self._asking: int | None = None
        """This host's prober, as of this report; 0: it has none, None: it was not looked for."""

    def __bool__(self) -> bool:
        return bool(self._noted)

    def note(self, session: SenderSession, peer: Peer, reason: str, began_at: float) -> None:
        """Note that an attempt that began at ``began_at`` (monotonic seconds) has failed."""
        seen = peer.attempted or peer.node
        failure = Failure(session, peer, seen, reason, began_at)
        self._noted.setdefault(session, []).append(failure)

    def report(self, meanwhile: Callable[[], object]) -> bool:
        """Write the records of what failed, which closes the gates; True if anything failed.

        ``meanwhile`` is called again and again: many failures take a while. Raises
        `StateUnavailable`.
        """
        noted, self._noted = self._noted, {}
        self._asking = None
        for session, failures in noted.items():
            # The record was changed by another process in between: it may be void, or open.
            changed = self._observe(session, failures, meanwhile)
            self._observe(session, [each for each in changed if each.peer.up], meanwhile)
        return bool(noted)

    def _observe(
        self,
        session: SenderSession,
        failures: Iterable[Failure],
        meanwhile: Callable[[], object],
    ) -> list[Failure]:
        """Write the records; return the failures of paths that have another record by now."""
        changed = []
        for some in batches(failures, AT_ONCE):
            seen = [self._observation(failure) for failure in some]
            replies = self._paths.observe(session.sender, seen)
            peers = (failure.peer for failure in some)
            session.put_paths(zip(peers, (path for _, path in replies), strict=True))
            for failure, observation, (reply, path) in zip(some, seen, replies, strict=True):
                meanwhile()
                if reply is Reply.ASK:
                    self._ask(failure, observation)
                elif reply is Reply.CHANGED and path != observation.before:
                    changed.append(failure)
        return changed

    def _observation(self, failure: Failure) -> Observation:
        return Observation(
            failure.node,
            failure.session.gates.path(failure.peer.destination),
            Event.SEND_FAILED,
            failure.reason,
            self._clock.ms(failure.began_at) or 0,
            failure.cause.by,
        )

    def _ask(self, failure: Failure, observation: Observation) -> None:
        views = self._directory.snapshot
        if self._asking is None:
            self._asking = self._prober.find(views) or 0
        opened = self._suspicions.open(
            failure.node,
            Kind.SUSPECT,
            asking=self._asking or None,
            reason=failure.reason,
            views=views,
            observation=(failure.session.sender, observation),
        )
        if opened is Opened.ALONE:
            self._fail_node(failure)

    def _fail_node(self, failure: Failure) -> None:
        """Count the failure in the verdict: no other host is present."""
        seen = failure.node
        if self._nodes.observe(seen, Event.SEND_FAILED, failure.cause) is not None:
            return
        node, _ = self._nodes.read(seen.cluster, seen.machine_id)
        same = node is not None and (node.generation, node.epoch) == (seen.generation, seen.epoch)
        if node is not None and same and node.state is State.UP:
            self._nodes.observe(node, Event.SEND_FAILED, failure.cause)
