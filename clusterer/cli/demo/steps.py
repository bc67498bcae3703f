"""The steps of the demo: each waits for an observation, for a bounded time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from clusterer.cli.demo.instance import CLUSTER, PIPE
from clusterer.cli.demo.observations import Observations
from clusterer.cli.demo.processes import (
    DURATION_S,
    FAILED_ATTEMPTS,
    DemoNode,
    helper_specs,
    instance_spec,
)
from clusterer.cli.demo.screen import Screen, live_table
from clusterer.errors import ClustererError
from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition
from clusterer.processes import Child, ChildSpec, EmbeddedRedis, ProcessGroup
from clusterer.processes.supervisor import describe_exit
from clusterer.services import Context
from clusterer.services.status import node_list
from clusterer.services.table import init_db, reload
from clusterer.settings import Settings
from clusterer.store import ClusterKey

LIMIT_S = 45.0
"""Bound of everything after the set-up."""
_POLL_S = 0.03
_SAMPLES = 30
"""Least number of packets with a measured latency."""


class NotObserved(ClustererError):
    """The demo did not observe a step in time."""


class Demo:
    """Runs the demo once. Children are gone when `run` returns or raises."""

    def __init__(
        self, settings: Settings, nodes: tuple[DemoNode, DemoNode], screen: Screen, *, verbose: bool
    ) -> None:
        self.observed = Observations()
        self._settings = settings
        self._a, self._b = nodes
        self._directions = (nodes, nodes[::-1])
        self._screen = screen
        self._verbose = verbose
        self._group = ProcessGroup()
        self._context = Context(settings)
        self._killed: Child | None = None
        self._end = time.monotonic() + LIMIT_S

    def run(self) -> None:
        """Go through all steps; `observed` has the observations and the failure."""
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
            with suppress(ClustererError):  # such as Redis unavailable: the steps failed as well
                traffic = node_list.run(self._context).traffic
                self.observed.packets_delivered = sum(item.sent for item in traffic)
            self._show("")

    # -- the steps ------------------------------------------------------------------------------

    def _set_up(self, redis: EmbeddedRedis) -> None:
        spec = redis.start(self._group)
        pid = self._group.children[spec.name].pid
        self._screen.step(f"Started {Path(spec.command[0]).name}, pid {pid}")
        self._screen.step(f"Data directory: {self._settings.data_path}")
        init_db.run(self._context)
        init_db.add(self._context, (self._a.row, self._b.row))
        reload.run(self._context, by="demo")
        self._screen.step(f"Table: node A is {self._a.url}, node B is {self._b.url}")

    def _start(self) -> None:
        self._launch(instance_spec(node, self._settings) for node in (self._a, self._b))
        # Workers that start earlier would find instances that they cannot reach yet.
        self._until(lambda: len(self.observed.reports) == 2, 15, "A and B listen")
        self._launch(helper_specs(self._settings))

    def _launch(self, specs: Iterable[ChildSpec]) -> None:
        for spec in specs:
            self._screen.step(f"Started {spec.name}, pid {self._group.start(spec).pid}")

    def _replicate(self) -> None:
        for sender, receiver in self._directions:
            what = f"{receiver.name} knows of {sender.name}'s calls"
            self._until(lambda: self._checks(sender, receiver) > 0, 15, what)  # noqa: B023
            self._screen.step(
                f"{sender.name} -> {receiver.name}: {receiver.name}'s pipe '{PIPE}' "
                f"counts {self._checks(sender, receiver)} checks of {sender.name}"
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
            raise NotObserved("B does not end after SIGKILL")
        self._screen.step(f"Killed B (kill -9 {child.pid})")
        self._until_state(Condition.PROBING, 10)
        self._screen.step("A cannot reach B: probing, one ping a second")
        self._until_state(Condition.DISABLED, 10)
        self._screen.step(f"{FAILED_ATTEMPTS} failed attempts: B is disabled for {DURATION_S} s")
        self._until(lambda: not self._a_sees_b(), 3, "A skips B")
        self._screen.step("A's get_nodes leaves B out")

    def _return(self) -> None:
        since = time.monotonic_ns()
        del self.observed.reports[self._b.machine_id]
        child = self._group.start(instance_spec(self._b, self._settings))
        self._screen.step(f"Started B again while it is disabled, pid {child.pid}")
        self._until_state(Condition.UP, DURATION_S + 5)
        self._screen.step(f"{DURATION_S} s are over: B is up again")
        self._until(self._a_sees_b, 3, "A sees B")
        for sender, receiver in self._directions:
            what = f"{receiver.name} receives packets of {sender.name} again"
            self._until(lambda: self._newest(sender, receiver) > since, 10, what)  # noqa: B023
        self._until(lambda: self._checks(self._a, self._b) > 0, 5, "B counts A's calls again")
        self._screen.step("Packets and counters arrive again in both directions")

    # -- what is observed -----------------------------------------------------------------------

    def _a_sees_b(self) -> bool:
        return self._b.machine_id in self.observed.report_of(self._a.machine_id).nodes

    def _checks(self, sender: DemoNode, receiver: DemoNode) -> int:
        """Return the sender's checks in the pipe of the receiver."""
        remote = self.observed.report_of(receiver.machine_id).remote
        return remote.get(str(sender.machine_id), 0)

    def _newest(self, sender: DemoNode, receiver: DemoNode) -> int:
        newest = self.observed.report_of(receiver.machine_id).newest
        return newest.get(str(sender.machine_id), 0)

    def _until_state(self, condition: Condition, timeout_s: float) -> None:
        what = f"B is {condition.value}"
        self._until(lambda: self.observed.states[-1] is condition, timeout_s, what)

    def _until(self, seen: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Observe until ``seen``; raise `NotObserved` after ``timeout_s`` seconds."""
        deadline = min(time.monotonic() + timeout_s, self._end)
        self._watch(what)
        while not seen():
            if time.monotonic() > deadline:
                raise NotObserved(f"not seen within {timeout_s:g} s: {what}")
            self._watch(what)

    def _watch(self, awaited: str) -> None:
        for line in self._group.read(_POLL_S):
            self.observed.add_line(line)
            if self._verbose and line.is_error:
                self._screen.write(f"{line.name}: {line.text}")
        view = self._context.nodes.view(ClusterKey(CLUSTER, PROTO_BIN))
        self.observed.add_nodes(view.nodes, self._b.machine_id)
        for name, child in self._group.children.items():
            if child.exit_code is not None and child is not self._killed:
                raise NotObserved(f"{name} ended unexpectedly ({describe_exit(child.exit_code)})")
        self._show(awaited)

    def _show(self, awaited: str) -> None:
        pids: dict[DemoNode, int | None] = dict.fromkeys((self._a, self._b))
        for node in pids:
            child = self._group.children.get(node.name)
            if child is not None and child.exit_code is None:
                pids[node] = child.pid
        self._screen.refresh(live_table(self.observed, pids, time.time()), awaited)
