"""Parts of the listener that need neither sockets nor Redis."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from time import monotonic

import pytest

from clusterer.errors import StateUnavailable
from clusterer.ids import SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.listener.counters import Counters
from clusterer.listener.dispatch import Dispatcher
from clusterer.listener.last_seen import LastSeenWriter, TickReport
from clusterer.listener.registrations import Noted, Registration, Registry
from clusterer.membership import Node
from clusterer.membership.addresses import normalised_ip
from clusterer.membership.views import Views
from clusterer.runtime.logs import LimitedLog
from clusterer.store import ClusterKey, ClusterView
from clusterer.store.watches import Watch
from clusterer.wire import Packet
from tests.support.listening import Recorded
from tests.support.processes import EVENTUALLY_S, LATE_S
from tests.support.seeding import make_node

KEY = ClusterKey(1, "bin")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("not an address", "not an address"),
        ("", ""),
    ],
)
def test_listener_address_has_one_form(text: str, normal: str) -> None:
    assert normalised_ip(text) == normal


# -- log lines -------------------------------------------------------------------------------


def test_listener_repeated_log_line_once_per_interval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limited = LimitedLog(logging.getLogger("test"), 10.0)
    for now in (0.0, 1.0, 9.9, 10.0, 10.1):
        limited.warning("key", now, "from %s", "here")
    assert caplog.messages == ["from here", "from here (and 2 more like this)"]


def test_listener_log_of_other_subject_is_immediate(caplog: pytest.LogCaptureFixture) -> None:
    limited = LimitedLog(logging.getLogger("test"), 10.0)
    limited.warning("one", 0.0, "one")
    limited.warning("two", 0.0, "two")
    assert caplog.messages == ["one", "two"]


def test_listener_log_of_many_subjects_shares_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limited = LimitedLog(logging.getLogger("test"), 10.0)
    for now in (0.0, 5.0, 9.9):
        for number in range(2_000):
            limited.warning(number, now, "flood of %d", number)
    assert caplog.messages == [f"flood of {number}" for number in range(1_001)]
    assert len(limited._limiter._windows) <= 1_001


def test_listener_log_forgets_old_subjects(caplog: pytest.LogCaptureFixture) -> None:
    limited = LimitedLog(logging.getLogger("test"), 10.0)
    for number in range(1_000):
        limited.warning(number, number / 100, "flood")
    limited.warning(0, 10.0, "again")
    caplog.clear()
    limited.warning("late", 10.0, "no room: one of the others")
    limited.warning("later", 10.0, "no room")
    assert caplog.messages == ["no room: one of the others"]
    for number in range(2_000, 2_050):
        limited.warning(number, 11.0, "another flood")
    assert caplog.messages[1:] == ["another flood"] * 50
    limited.warning(0, 11.0, "too early")
    assert caplog.messages[-1] == "another flood"


def test_listener_log_fields_are_made_for_logged_lines_only() -> None:
    limited = LimitedLog(logging.getLogger("test"), 10.0)
    made: list[dict[str, object]] = []

    def fields() -> dict[str, object]:
        made.append({"number": len(made)})
        return made[-1]

    for now in (0.0, 1.0, 2.0, 10.0):
        limited.warning("key", now, "line", extra=fields)
    assert made == [{"number": 0}, {"number": 1}]


# -- registrations ---------------------------------------------------------------------------


def test_listener_each_registration_has_its_own_token() -> None:
    registry = Registry(1)
    watches = [registry.reserve("ratelimit", cluster, 1.0) for cluster in (1, 1, 2, 1)]
    assert [watch.token for watch in watches] == [
        "ratelimit",
        "ratelimit#2",
        "ratelimit",
        "ratelimit#3",
    ]
    assert {watch.module for watch in watches} == {"ratelimit"}


def test_listener_module_named_like_token_collides_with_none() -> None:
    registry = Registry(1)
    registry.reserve("ul#2", 1, 0)
    registry.reserve("ul", 1, 0)
    assert registry.reserve("ul", 1, 0).token == "ul#3"


def test_listener_token_of_failed_registration_is_free() -> None:
    registry = Registry(1)
    registry.release(registry.reserve("ul", 1, 0))
    assert registry.reserve("ul", 1, 0).token == "ul"


@pytest.mark.parametrize(("seconds", "ms"), [(0, 0), (5, 5_000), (0.0001, 1), (1.5, 1_500)])
def test_listener_timeout_in_ms_never_rounds_to_0(seconds: float, ms: int) -> None:
    assert Registry(1).reserve("ul", 1, seconds).timeout_ms == ms


@pytest.mark.parametrize("watch", [Watch(1, "a:b#2", "a:b", 7, 5), Watch(3, "ul", "ul", 0, 0)])
def test_listener_watch_is_read_back_from_field(watch: Watch) -> None:
    assert Watch.parse(watch.receiver, watch.field, watch.timeout_ms) == watch


# -- dispatch --------------------------------------------------------------------------------


class Bench:
    """A dispatcher of node 1 with nodes 2 and 3 in cluster 1."""

    def __init__(self) -> None:
        self.registry = Registry(1)
        self.dispatcher = Dispatcher(1, self.registry, Counters())
        self.nodes = {number: make_node(number) for number in (1, 2, 3)}
        self.version = 1
        self.dispatcher.use(self.views())

    def views(self) -> Views:
        return {KEY: ClusterView.of(KEY, self.version, self.nodes.values())}

    def change(self, *nodes: Node, gone: int = 0) -> None:
        self.nodes |= {node.machine_id: node for node in nodes}
        self.nodes.pop(gone, None)
        self.version += 1
        self.dispatcher.use(self.views())

    def register(
        self, *, auth_check: bool = True, cluster_id: int = 1
    ) -> tuple[Registration, Recorded]:
        recorded = Recorded()
        watch = self.registry.reserve("ul", cluster_id, 5)
        made = Registration(watch, recorded, auth_check, frozenset())
        self.registry.add(made)
        self.dispatcher.use(self.views())
        return made, recorded

    def send(self, ip: str, machine_id: int) -> tuple[Noted, ...]:
        """Route one packet; returns the nodes for which it was a sign of life."""
        route = self.dispatcher.route(ip, "ul", machine_id)
        for call in route.calls:
            call(5, (("ip", 1), Packet("ul", 5, machine_id)), machine_id)  # type: ignore[arg-type]
        return route.noted


def test_listener_members_are_cluster_without_own_id() -> None:
    bench = Bench()
    registration, _ = bench.register()
    assert registration.members == {2, 3}


def test_listener_late_registration_follows_snapshot() -> None:
    bench = Bench()
    bench.change(make_node(4))
    registration, _ = bench.register()
    assert registration.members == {2, 3, 4}


def test_listener_routes_follow_a_change() -> None:
    bench = Bench()
    bench.register()
    before = bench.dispatcher.epoch
    bench.dispatcher.use(bench.views())
    assert bench.dispatcher.epoch == before, "nothing changed"
    bench.change(replace(bench.nodes[2], host="127.0.0.9"))
    assert bench.dispatcher.epoch != before


def test_listener_packet_from_wrong_source_not_counted_for_node() -> None:
    bench = Bench()
    bench.register()
    assert bench.dispatcher.route("127.0.0.9", "ul", 2).tally is None
    assert bench.dispatcher.counters.received == {}
    assert bench.dispatcher.route("127.0.0.2", "ul", 2).tally is not None
    bench.register(auth_check=False)
    assert bench.dispatcher.route("127.0.0.9", "ul", 2).tally is not None
    assert set(bench.dispatcher.counters.received) == {("ul", 2)}


def test_listener_new_address_of_node_counts() -> None:
    bench = Bench()
    _, recorded = bench.register()
    bench.change(replace(bench.nodes[2], host="::ffff:127.0.0.9"))
    assert bench.send("127.0.0.2", 2) == ()
    assert bench.send("127.0.0.9", 2) != ()
    assert recorded.seen == [(5, 2)]


def test_listener_without_auth_check_records_cluster_nodes_only() -> None:
    bench = Bench()
    registration, recorded = bench.register(auth_check=False)
    assert bench.send("10.9.9.9", 2) == (registration,)
    assert bench.send("10.9.9.9", 77) == ()
    assert bench.send("127.0.0.1", 1) == ()
    assert recorded.seen == [(5, 2), (5, 77), (5, 1)]


def test_listener_without_cluster_records_no_node() -> None:
    bench = Bench()
    _, recorded = bench.register(auth_check=False, cluster_id=0)
    assert bench.send("127.0.0.2", 2) == ()
    assert recorded.seen == [(5, 2)]


def test_listener_unknown_cluster_accepts_no_packet() -> None:
    bench = Bench()
    _, recorded = bench.register(cluster_id=9)
    assert bench.send("127.0.0.2", 2) == ()
    assert recorded.seen == []
    assert bench.dispatcher.counters.drops == {"unknown source": 1}


def test_listener_packet_dropped_by_several_counts_once() -> None:
    bench = Bench()
    registrations = [bench.register()[0] for _ in range(3)]
    bench.send("10.9.9.9", 2)
    assert bench.dispatcher.counters.drops == {"unknown source": 1}
    for registration in registrations[:2]:
        bench.dispatcher.time_out(registration, 2, until=10.0)
    bench.send("127.0.0.2", 2)
    assert bench.dispatcher.counters.drops == {"unknown source": 1, "silenced": 1}


def test_listener_timeout_notice_names_its_node(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    registration, _ = bench.register()
    bench.dispatcher.time_out(registration, 2, until=monotonic() + 10)
    (record,) = caplog.records
    url = bench.nodes[2].url
    assert record.message == (
        f"node 2 of cluster 1 ({url}): module timeout: module ul drops its packets for 10 s"
    )
    fields = vars(record)
    assert (fields["cluster"], fields["machine_id"], fields["url"]) == (1, 2, url)


def test_listener_mute_is_of_one_registration_and_ends() -> None:
    bench = Bench()
    first, recorded = bench.register()
    _, other = bench.register()
    bench.dispatcher.time_out(first, 2, until=10.0)
    assert first not in bench.send("127.0.0.2", 2)
    assert recorded.seen == [(SERVER_TIMEOUT, 2), (SERVER_TEMP_DISABLED, 2)]
    assert other.seen == [(5, 2)]
    bench.dispatcher.unmute(9.9)
    assert first not in bench.send("127.0.0.2", 2)
    before = bench.dispatcher.epoch
    bench.dispatcher.unmute(10.0)
    assert bench.dispatcher.epoch != before
    assert first in bench.send("127.0.0.2", 2)
    assert recorded.seen[-1] == (5, 2)


def test_listener_muted_node_at_wrong_address_is_unknown() -> None:
    bench = Bench()
    registration, recorded = bench.register()
    bench.dispatcher.time_out(registration, 2, until=10.0)
    bench.send("127.0.0.3", 2)
    assert recorded.seen == [(SERVER_TIMEOUT, 2)]


def test_listener_removed_node_is_neither_muted_nor_announced() -> None:
    bench = Bench()
    registration, recorded = bench.register()
    bench.dispatcher.time_out(registration, 3, until=10.0)
    registration.last_seen[2] = 1.0
    bench.change(gone=3)
    bench.change(gone=2)
    assert registration.muted == {}
    assert registration.last_seen == {}
    bench.dispatcher.time_out(registration, 2, until=10.0)
    assert recorded.seen == [(SERVER_TIMEOUT, 3)]


def test_listener_redis_without_mutes_ends_them() -> None:
    bench = Bench()
    registration, _ = bench.register()
    bench.dispatcher.time_out(registration, 2, until=1e9)
    bench.dispatcher.unmute_all()
    assert registration in bench.send("127.0.0.2", 2)


# -- hand-overs ------------------------------------------------------------------------------

WATCH = Watch(1, "ul", "ul", 1, 5_000)
OTHER = Watch(1, "dialog", "dialog", 1, 5_000)


def test_listener_failed_flush_is_merged_into_next() -> None:
    older = TickReport(1.0, {WATCH: {2: 0.5, 3: 0.6}}, {WATCH: frozenset({2, 3})})
    newer = TickReport(2.0, {WATCH: {2: 1.5}, OTHER: {2: 1.7}}, {WATCH: frozenset({2})})
    merged = newer.after(older)
    assert merged == TickReport(
        2.0, {WATCH: {2: 1.5, 3: 0.6}, OTHER: {2: 1.7}}, {WATCH: frozenset({2})}
    )


class FrozenReceipts:
    """Answers nothing until it is released, and then that Redis is away."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()

    def begin(self, *args: object) -> str:
        self.asked.set()
        self.release.wait(EVENTUALLY_S)
        raise StateUnavailable("frozen")


def test_listener_flush_never_waits_for_redis() -> None:
    frozen = FrozenReceipts()
    clocks = LastSeenWriter(1, frozen)  # type: ignore[arg-type]  # the one method that is called
    clocks.start(lambda reply: None)
    members = {WATCH: frozenset({2})}
    try:
        clocks.report(TickReport(1.0, {WATCH: {2: 0.5}}, members))
        assert frozen.asked.wait(EVENTUALLY_S)
        started = monotonic()
        clocks.report(TickReport(2.0, {WATCH: {2: 1.5}}, members))
        assert monotonic() - started < 5 + LATE_S, "it waited for Redis"
    finally:
        frozen.release.set()
        clocks.stop()


def test_listener_without_registrations_sends_no_command() -> None:
    frozen = FrozenReceipts()
    clocks = LastSeenWriter(1, frozen)  # type: ignore[arg-type]  # nothing is called
    clocks.start(lambda reply: None)
    clocks.report(TickReport(0.0, {}, {}))
    clocks.stop()
    assert not frozen.asked.is_set()
