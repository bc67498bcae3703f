"""Paths under histories that hypothesis makes: observations, answers and changes in any order.

Messages are lost, late and doubled. What holds whatever happens: a sender's gate depends on its own
record and the operator only; an ack that is said after the fall lifts the verdict; no suspicion
outlives the version that it is about; readers hear of each change of a record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as bounds
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from clusterer.membership import Condition, Event, Node, State
from clusterer.membership.paths import Path, gate, is_void
from clusterer.membership.suspicions import WINDOW_MS, Kind, Outcome, Suspicion, outcome
from clusterer.settings import Settings
from clusterer.store import Cause, keys
from clusterer.store.paths import Observation, Reply
from clusterer.store.suspicions import Opened
from tests.support.cluster import CLUSTER
from tests.support.paths import WHY, Paths
from tests.support.scale import scaled

SENDERS = (1, 3, 4)
PROBERS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Answer:
    """What a prober will say of node 2, unless the message is lost."""

    prober: int
    ack: bool
    seen: Node
    suspicion: Suspicion
    began_ms: int


@dataclass
class Sender:
    """What the model knows of a sender's path to node 2."""

    closed: bool = False
    counter: int = 0
    records: dict[str, Path] = field(default_factory=dict)


HOUR_MS = 3_600_000


class Machine(RuleBasedStateMachine):
    """Three senders and five probers, and node 2, which all of them watch."""

    settings: Settings
    client: redis.Redis

    observations = Bundle("observations")
    asking = Bundle("asking")
    answers = Bundle("answers")

    @initialize(failed_attempts=st.integers(1, 3))
    def begin(self, failed_attempts: int) -> None:
        self.client.flushall()
        self.world = Paths(self.settings, self.client)
        self.failed_attempts, self.host = failed_attempts, 2
        self.load()
        self.world.arrive(*PROBERS)
        self.senders = {sender: Sender() for sender in SENDERS}

    def load(self) -> None:
        self.world.load(host=self.host, duration=3000, failed_attempts=self.failed_attempts)

    @property
    def node(self) -> Node:
        return self.world.node()

    def became(self, before: Node) -> None:
        """Note what a change of the node means for the gates of all senders."""
        after = self.node
        if after.state is State.UP and before.state is not State.UP:
            assert after.epoch == after.version, "all senders try again"
        if after.epoch != before.epoch or after.generation != before.generation:
            for sender in self.senders.values():
                sender.closed = False

    # -- senders ---------------------------------------------------------------------------------

    @rule(target=observations, sender=st.sampled_from(SENDERS))
    def attempt_fails(self, sender: int) -> tuple[int, Observation]:
        return sender, self.world.seen(sender)

    @rule(target=observations, sender=st.sampled_from(SENDERS), works=st.booleans())
    def host_checks_path(self, sender: int, *, works: bool) -> tuple[int, Observation]:
        event = Event.PROBE_SUCCEEDED if works else Event.PROBE_FAILED
        return sender, self.world.seen(sender, event)

    @rule(sender=st.sampled_from(SENDERS), probers=st.sets(st.sampled_from(PROBERS)))
    def link_breaks(self, sender: int, probers: set[int]) -> None:
        """All at once and in order, but for the end."""
        self.sender_asks(self.observation_arrives(self.attempt_fails(sender)))
        for prober in sorted(probers):
            self.answer_arrives(self.prober_looks(prober, ack=False))

    @rule(target=asking, message=observations)
    def observation_arrives(
        self, message: tuple[int, Observation]
    ) -> tuple[int, Observation, Reply]:
        """Late, and perhaps for the second time."""
        sender, seen = message
        name, before = seen.node.destination, self.node
        told = self.world.paths.records(sender).get(name)
        ((reply, path),) = self.world.paths.observe(sender, [seen])
        assert self.node == before, "a record changes no node"
        assert self.world.paths.records(sender).get(name) == path
        same = (seen.node.generation, seen.node.epoch) == (before.generation, before.epoch)
        assert (reply is Reply.CHANGED) is not (same and told == seen.before)
        if reply is Reply.CHANGED:
            assert path == told
        else:
            self.senders[sender].closed = path is not None and path.state is State.PROBING
            assert (reply is Reply.NOT_UP) is (before.state is not State.UP)
        return sender, seen, reply

    @rule(message=asking)
    def sender_asks(self, message: tuple[int, Observation, Reply]) -> None:
        sender, seen, reply = message
        before, open_before = self.node, self.world.suspicion()
        if reply is not Reply.ASK:
            return
        opened = self.world.suspicions.open(
            seen.node, Kind.SUSPECT, asking=sender, reason=WHY, views=self.world.views()
        )
        assert self.node == before
        assert opened is not Opened.ALONE
        if opened is Opened.ALREADY:
            assert self.world.suspicion() == open_before
        elif opened is Opened.ASKED:
            assert open_before is None
            assert before.condition is Condition.UP
        else:
            same = seen.node.generation == before.generation
            assert not same or before.condition is not Condition.UP

    # -- the verdict -----------------------------------------------------------------------------

    @rule()
    def round_of_probe_job_begins(self) -> None:
        opened = self.world.open(Kind.PROBE, asking=None)
        assert (opened is Opened.CHANGED) is (self.node.state is not State.PROBING)

    @rule(target=answers, prober=st.sampled_from(PROBERS), ack=st.booleans())
    def prober_looks(self, prober: int, *, ack: bool) -> Answer | Any:
        suspicion = self.world.suspicion()
        if suspicion is None:
            return multiple()
        return Answer(prober, ack, self.node, suspicion, self.world.paths.now_ms())

    @rule(answer=answers)
    def answer_arrives(self, answer: Answer | Any) -> None:
        """Late, and perhaps for the second time."""
        if not isinstance(answer, Answer):
            return
        before, open_before = self.node, self.world.suspicion()
        if not answer.ack:
            found = self.world.suspicions.nack(CLUSTER, 2, answer.suspicion, answer.prober)
            assert found == self.world.suspicion() or found is None
            same = open_before is not None and open_before.since_ms == answer.suspicion.since_ms
            assert (found is not None) is same
            assert found is None or found.nacks <= found.asked
            assert self.node == before
            return
        counts = self.world.suspicions.ack(
            answer.seen, answer.prober, "test", began_ms=answer.began_ms
        )
        older = open_before is not None and answer.began_ms < open_before.since_ms
        assert counts is (answer.seen.generation == before.generation and not older)
        if counts:
            assert self.world.suspicion() is None
            said = self.world.suspicions.confirmations([CLUSTER])[CLUSTER][2]
            assert said.who == answer.prober
            assert self.node.condition is not Condition.PROBING
        elif open_before is not None:
            assert self.world.suspicion() == open_before
        self.became(before)

    @rule(sender=st.sampled_from(SENDERS))
    def engine_reaches_node(self, sender: int) -> None:
        before = self.node
        assert self.world.suspicions.ack(before, sender, "test", bytes_taken=True)
        assert self.node.state is (State.DOWN if before.state is State.DOWN else State.UP)
        self.became(before)

    @rule()
    def suspicion_is_concluded(self) -> None:
        read = self.world.suspicion()
        if read is not None:
            self.conclude(read)

    @rule(answer=answers)
    def suspicion_is_concluded_late(self, answer: Answer) -> None:
        """By a prober that read it before."""
        self.conclude(answer.suspicion)

    def conclude(self, read: Suspicion) -> None:
        before, there = self.node, self.world.suspicion()
        becomes = outcome(read, read.since_ms + WINDOW_MS)
        if becomes is Outcome.WIDEN:
            widened = self.world.suspicions.widen(CLUSTER, 2, read)
            assert widened is (
                there is not None and there.since_ms == read.since_ms and not there.wide
            )
        elif becomes is Outcome.NOTHING:
            self.world.nodes.end_suspicion(CLUSTER, 2, read)
        else:
            event = Event.SEND_FAILED if read.kind is Kind.SUSPECT else Event.PROBE_FAILED
            after = self.world.nodes.observe(before, event, Cause("test"), read)
            fell = self.node.no_tries > before.no_tries
            assert not fell or (there is not None and there.since_ms == read.since_ms)
            if fell:
                assert after == self.node
                assert self.world.suspicion() is None
        self.became(before)

    @rule(event=st.sampled_from([Event.PROBE_SUCCEEDED, Event.PROBE_FAILED, Event.SUSPECTED]))
    def worker_of_earlier_release_changes_node(self, event: Event) -> None:
        before = self.node
        self.world.commit(event)
        self.became(before)

    # -- what else happens -----------------------------------------------------------------------

    @rule(event=st.sampled_from([Event.SET_UP, Event.SET_UP, Event.SET_DOWN]))
    def operator_sets(self, event: Event) -> None:
        before = self.node
        after = self.world.nodes.command(CLUSTER, 2, event, Cause("operator"))
        if event is Event.SET_UP:
            now_ms = self.world.paths.now_ms()
            assert all(gate(after, self.world.record(sender), now_ms) for sender in SENDERS)
        self.became(before)

    @rule(host=st.sampled_from([2, 7]), duration=st.sampled_from([3000, 3001]))
    def table_is_edited(self, host: int, duration: int) -> None:
        before, self.host = self.node, host
        self.world.load(host=host, duration=duration, failed_attempts=self.failed_attempts)
        self.became(before)

    @rule(name=st.sampled_from([keys.suspicions(*CLUSTER), keys.confirmed(*CLUSTER)]))
    def key_is_lost(self, name: str) -> None:
        self.client.delete(name)

    @rule(sender=st.sampled_from(SENDERS))
    def void_records_are_deleted(self, sender: int) -> None:
        records, node, now_ms = (
            self.world.paths.records(sender),
            self.node,
            self.world.paths.now_ms(),
        )
        own = node.destination
        void = {
            name: path
            for name, path in records.items()
            if is_void(path, node if name == own else None, now_ms)
        }
        self.world.paths.delete(sender, void)
        assert self.world.paths.records(sender).keys() == records.keys() - void.keys()

    # -- what holds always -----------------------------------------------------------------------

    @invariant()
    def gate_depends_on_own_record_and_operator(self) -> None:
        node, now_ms = self.node, self.world.paths.now_ms()
        for number, sender in self.senders.items():
            is_open = node.state is not State.DOWN and not sender.closed
            assert gate(node, self.world.record(number), now_ms) is is_open, number

    @invariant()
    def suspicion_is_of_current_version(self) -> None:
        suspicion, node = self.world.suspicion(), self.node
        if suspicion is not None:
            assert suspicion.version == node.version
            assert node.state is not State.DOWN
            assert (suspicion.kind is Kind.SUSPECT) is (node.state is State.UP)

    @invariant()
    def readers_hear_of_changed_records(self) -> None:
        counters = self.world.paths.counters()
        for number, sender in self.senders.items():
            records = dict(self.world.paths.records(number))
            assert bool(records) is (number in counters)
            if records != sender.records:
                assert counters.get(number, 0) != sender.counter
            sender.records, sender.counter = records, counters.get(number, 0)

    @invariant()
    def epoch_is_version_that_was(self) -> None:
        assert 0 < self.node.epoch <= self.node.version


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_paths_any_history_keeps_rules(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message is too old, however slow the machine is: the model knows no time."""
    for module in ("membership.suspicions", "store.suspicions", "store.paths"):
        monkeypatch.setattr(f"clusterer.{module}.VOID_MS", HOUR_MS)
    monkeypatch.setattr("clusterer.store.suspicions.EVIDENCE_MS", HOUR_MS)
    made: Any = type("Run", (Machine,), {"settings": settings, "client": redis_client})
    run_state_machine_as_test(
        made,
        settings=bounds(
            max_examples=scaled(60, 300),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
