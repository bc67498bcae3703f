"""The demo's plot: every step is a bounded wait for something that is really observed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from clusterer.cli.demo.instance import PIPE
from clusterer.cli.demo.observed import Observed
from clusterer.cli.demo.screen import Screen
from clusterer.cli.demo.stage import (
    CLUSTER,
    DURATION_S,
    FAILED_ATTEMPTS,
    Actor,
    helper_specs,
    instance_spec,
)
from clusterer.errors import ClustererError
from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition
from clusterer.processes import Child, ChildSpec, EmbeddedRedis, ProcessGroup
from clusterer.processes.supervisor import describe_exit
from clusterer.services import Context
from clusterer.services.status import listing
from clusterer.services.table import init_db, reload
from clusterer.settings import Settings
from clusterer.store import ClusterKey

LIMIT_S = 45.0
"""For everything after the set-up."""
_POLL_S = 0.03
_SAMPLES = 30
"""Packets whose latency is measured at least."""


class NotObserved(ClustererError):
    """Something that had to happen did not, in time."""


class Story:
    """Plays the demo once. Children are gone when `play` returns or raises."""

    def __init__(
        self, settings: Settings, actors: tuple[Actor, Actor], screen: Screen, *, verbose: bool
    ) -> None:
        self.observed = Observed()
        self._settings = settings
        self._a, self._b = actors
        self._screen = screen
        self._verbose = verbose
        self._group = ProcessGroup()
        self._context = Context(settings)
        self._killed: Child | None = None
        self._end = time.monotonic() + LIMIT_S

    def play(self) -> None:
        """Play it; what was seen, and what was missing, is in `observed`."""
        with ExitStack() as stack:
            redis = EmbeddedRedis(self._settings)
            stack.callback(redis.close)
            stack.enter_context(self._group)
            stack.enter_context(closing(self._context))
            try:
                self._set_up(redis)
                self._end = time.monotonic() + LIMIT_S
                self._start()
                self._replicate()
                self._kill()
                self._return()
            except ClustererError as error:
                self.observed.failure = str(error)
            self._count()
            self._screen.refresh(self.observed, self._pid_of, now=time.time(), last=True)

    # -- the steps ------------------------------------------------------------------------------

    def _set_up(self, redis: EmbeddedRedis) -> None:
        spec = redis.start(self._group)
        self._screen.step(
            f"Started {Path(spec.command[0]).name}, pid {self._group.children[spec.name].pid}"
        )
        self._screen.step(f"Everything is in {self._settings.data_path}")
        init_db.run(self._context)
        init_db.add(self._context, (self._a.row, self._b.row))
        reload.run(self._context, by="demo")
        self._screen.step(f"Table: node A is {self._a.url}, node B is {self._b.url}")

    def _start(self) -> None:
        self._launch([instance_spec(actor, self._settings) for actor in (self._a, self._b)])
        # Not before, or the workers would find instances that cannot be reached yet.
        self._until(lambda: len(self.observed.instances) == 2, 15, "A and B listen")
        self._launch(helper_specs(self._settings))

    def _launch(self, specs: list[ChildSpec]) -> None:
        for spec in specs:
            child = self._group.start(spec)
            self._screen.step(f"Started {spec.name}, pid {child.pid}")

    def _replicate(self) -> None:
        for sender, receiver in ((self._a, self._b), (self._b, self._a)):
            seen = partial(self._is_replicated, sender, receiver)
            self._until(seen, 15, f"{receiver.name} knows of {sender.name}'s calls")
            count = self.observed.instances[receiver.machine_id].remote[sender.machine_id]
            self._screen.step(
                f"{sender.name} -> {receiver.name}: {receiver.name}'s pipe '{PIPE}' "
                f"counts {count} checks of {sender.name}"
            )
        # The first packets had to wait for the worker to start.
        self.observed.latencies_ms.clear()
        self._until(lambda: len(self.observed.latencies_ms) >= _SAMPLES, 10, "packets arrive")
        self._screen.step(
            f"Delivery takes {self.observed.latency_ms:.1f} ms from send_to to the peer's callback"
        )

    def _kill(self) -> None:
        child = self._killed = self._group.children[self._b.name]
        child.send_signal(signal.SIGKILL)
        if not child.wait(5):
            raise NotObserved("B does not die")
        self._screen.step(f"Killed B (kill -9 {child.pid})")
        self._until_state(Condition.PROBING, 10)
        self._screen.step("A cannot reach B: probing, one ping a second")
        self._until_state(Condition.DISABLED, 10)
        self._screen.step(f"{FAILED_ATTEMPTS} failed attempts: B is disabled for {DURATION_S} s")
        self._until(lambda: self._b.machine_id not in self._nodes_of_a(), 3, "A skips B")
        self._screen.step("A's get_nodes leaves B out")

    def _return(self) -> None:
        since = time.monotonic_ns()
        self.observed.forget(self._b.machine_id)
        child = self._group.start(instance_spec(self._b, self._settings))
        self._screen.step(f"Started B again while it is disabled, pid {child.pid}")
        self._until_state(Condition.UP, DURATION_S + 5)
        self._screen.step(f"{DURATION_S} s are over: B is up again")
        self._until(lambda: self._b.machine_id in self._nodes_of_a(), 3, "A sees B")
        for sender, receiver in ((self._a, self._b), (self._b, self._a)):
            seen = partial(self._has_arrived, sender, receiver, since)
            self._until(seen, 10, f"{receiver.name} hears {sender.name} again")
        self._until(self._b_counts_a, 5, "B counts A's calls again")
        self._screen.step("Packets and counters arrive again in both directions")

    def _count(self) -> None:
        """Read how many packets the delivery worker says it delivered."""
        try:
            # The worker commits what it has delivered a moment later than it did so.
            self._until(lambda: self._delivered() > 0, 3, "delivered packets are counted")
            self.observed.packets_delivered = self._delivered()
        except ClustererError as error:
            self.observed.failure = self.observed.failure or str(error)

    # -- what they stand on ---------------------------------------------------------------------

    def _delivered(self) -> int:
        return sum(item.sent for item in listing.run(self._context).traffic)

    def _nodes_of_a(self) -> list[int]:
        return self.observed.instances[self._a.machine_id].nodes

    def _is_replicated(self, sender: Actor, receiver: Actor) -> bool:
        return (sender.machine_id, receiver.machine_id) in self.observed.replicated

    def _b_counts_a(self) -> bool:
        return self.observed.instances[self._b.machine_id].remote.get(self._a.machine_id, 0) > 0

    def _has_arrived(self, sender: Actor, receiver: Actor, since_ns: int) -> bool:
        stamps = self.observed.instances[receiver.machine_id].last_stamp
        return stamps.get(sender.machine_id, 0) > since_ns

    def _until_state(self, condition: Condition, timeout_s: float) -> None:
        self._until(
            lambda: self.observed.states[-1] is condition, timeout_s, f"B is {condition.value}"
        )

    def _until(self, seen: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Watch everything until ``seen``; raise `NotObserved` after ``timeout_s`` seconds."""
        self._screen.wait_for(what)
        deadline = min(time.monotonic() + timeout_s, self._end)
        while True:
            self._watch()
            if seen():
                return
            if time.monotonic() > deadline:
                raise NotObserved(f"not seen within {timeout_s:g} s: {what}")

    def _watch(self) -> None:
        for line in self._group.read(_POLL_S):
            self.observed.hear(line)
            if self._verbose and line.is_error:
                self._screen.write(f"{line.name}: {line.text}")
        self._look_at_nodes()
        self._check_children()
        self._screen.refresh(self.observed, self._pid_of, now=time.time())

    def _look_at_nodes(self) -> None:
        view = self._context.nodes.view(ClusterKey(CLUSTER, PROTO_BIN))
        self.observed.see(dict(view.nodes), self._b.machine_id)

    def _check_children(self) -> None:
        for name, child in self._group.children.items():
            code = child.exit_code
            if code is not None and child is not self._killed:
                raise NotObserved(f"{name} ended unexpectedly ({describe_exit(code)})")

    def _pid_of(self, name: str) -> int | None:
        child = self._group.children.get(name)
        return child.pid if child is not None and child.exit_code is None else None
