"""The observer of dialog: calls and profile counts that other nodes replicate."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.ids import PROTO_BIN, SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.modules.dialog import Bounds, Call, Change, Dialogs, ProfileUse, Reason
from clusterer.payloads import (
    CallState,
    DialogDeleted,
    Message,
    ProfileCount,
    ProfileCounts,
)
from clusterer.wire import Packet
from tests.support.cluster import node
from tests.support.fake_cluster import FakeClock, FakeCluster, received
from tests.support.observing import CAPTURED_AT, call, captured_packets, update
from tests.support.processes import wait_until


class Watched:
    """An observer on a fake cluster, and the changes that its callbacks received."""

    def __init__(self, **options: Any) -> None:
        self.cluster = FakeCluster()
        self.clock = FakeClock()
        self.unix = FakeClock(CAPTURED_AT)
        self.dialogs = Dialogs(self.cluster, 7, clock=self.clock, unix_clock=self.unix, **options)
        self.changes: list[Change[Call]] = []
        self.uses: list[Change[ProfileUse]] = []
        self.dialogs.on_call(self.changes.append)
        self.dialogs.on_profile(self.uses.append)
        self.dialogs.start()
        self.dialogs.stop()

    def take(self, message: Message, machine_id: int = 2) -> None:
        self.cluster.deliver(message.encode(machine_id))

    def count(self, calls: int, machine_id: int = 2, value: bytes | None = b"sipp") -> None:
        self.take(ProfileCounts((ProfileCount(b"caller", value, calls),)), machine_id)

    @property
    def ids(self) -> list[str]:
        return [found.call_id for found in self.dialogs.calls()]

    @property
    def story(self) -> list[tuple[str, str]]:
        return [(change.kind, change.reason.value) for change in self.changes]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def deleted(of: Any, **changes: Any) -> DialogDeleted:
    message = DialogDeleted(of.call_id, of.from_tag, of.to_tag)
    return replace(message, **changes)


# -- registering -----------------------------------------------------------------------------------


def test_start_registers_counts_with_timeout_calls_without(watched: Watched) -> None:
    assert [(r["module_name"], r["proto"], r["timeout"]) for r in watched.cluster.registered] == [
        ("dialog", PROTO_BIN, 0),
        ("dialog", PROTO_BIN, 10),
    ]
    assert all(r["auth_check"] is True for r in watched.cluster.registered)
    assert {r["cluster_id"] for r in watched.cluster.registered} == {7}


def test_start_repeated_after_failure_registers_once() -> None:
    cluster = FakeCluster()
    dialogs = Dialogs(cluster, 1, profiles_timeout=0)
    cluster.fault = StateUnavailable("Redis is away")
    with pytest.raises(StateUnavailable):
        dialogs.start()
    assert "dialogs" not in [thread.name for thread in threading.enumerate()]
    cluster.fault = None
    with dialogs, dialogs:
        pass
    assert [r["timeout"] for r in cluster.registered] == [0, 0]


def test_dialogs_invalid_cluster_id_raises() -> None:
    with pytest.raises(InvalidArgument, match="cluster_id"):
        Dialogs(FakeCluster(), 0)


# -- calls -----------------------------------------------------------------------------------------


def test_call_created_then_deleted_removed(watched: Watched) -> None:
    made = call()
    watched.take(made)
    (found,) = watched.dialogs.calls()
    assert (found.call_id, found.machine_id, found.is_confirmed) == ("call-1", 2, True)
    assert (found.from_uri, found.to_uri) == (
        "sip:sipp@127.0.0.3:6061",
        "sip:service@127.0.0.1:5060",
    )
    assert (found.from_tag, found.to_tag) == ("19489SIPpTag002", "19452SIPpTag012")
    assert found.started == 1_795_380_351
    watched.take(deleted(made))
    assert watched.dialogs.calls() == []
    assert watched.changes == [Change(None, found), Change(found, None)]
    assert watched.dialogs.stats.messages == 2


def test_call_updated_reports_old_and_new(watched: Watched) -> None:
    watched.take(call())
    watched.take(update(), machine_id=3)
    (_, change) = watched.changes
    assert change.kind == "updated"
    assert change.old is not None
    assert change.new is not None
    assert (change.old.sent.state, change.new.sent.state) == (3, 4)
    assert (change.old.machine_id, change.new.machine_id) == (2, 3)
    assert watched.ids == ["call-1"]


def test_call_repeated_reports_no_change(watched: Watched) -> None:
    watched.take(call())
    watched.take(call())
    assert len(watched.changes) == 1


def test_call_updated_without_created_added(watched: Watched) -> None:
    watched.take(update())
    assert watched.story == [("added", "message")]


def test_call_updated_to_deleted_removed(watched: Watched) -> None:
    watched.take(call())
    watched.take(update(state=CallState.DELETED))
    assert watched.ids == []
    assert watched.story[-1] == ("removed", "message")


def test_calls_with_other_call_id_or_tags_distinct(watched: Watched) -> None:
    for made in (call(), call(from_tag=b"x"), call(to_tag=b"y"), call(b"call-2")):
        watched.take(made)
    assert len(watched.dialogs.calls()) == 4
    assert len(watched.dialogs.calls("call-1")) == 3
    assert [c.to_tag for c in watched.dialogs.calls(b"call-1")][-1] == "y"
    watched.take(deleted(call(), to_tag=b"y"))
    assert [c.to_tag for c in watched.dialogs.calls("call-1")] == ["19452SIPpTag012"] * 2


def test_call_early_gets_to_tag_stays_one_call(watched: Watched) -> None:
    watched.take(call(to_tag=b"", state=CallState.EARLY))
    watched.take(call())
    assert len(watched.dialogs.calls()) == 1
    assert watched.story == [("added", "message"), ("updated", "message")]
    assert watched.changes[1].old == watched.changes[0].new


def test_call_second_branch_leaves_first_unchanged(watched: Watched) -> None:
    watched.take(call())
    watched.take(call(to_tag=b"", state=CallState.EARLY))
    watched.take(update())
    assert [kind for kind, _ in watched.story] == ["added", "added", "removed", "updated"]
    assert len(watched.dialogs.calls()) == 1


@pytest.mark.parametrize("to_tag", [b"", b"late"])
def test_call_early_deleted_removed(watched: Watched, to_tag: bytes) -> None:
    early = call(to_tag=b"", state=CallState.EARLY)
    watched.take(early)
    watched.take(deleted(early, to_tag=to_tag))
    assert watched.ids == []


def test_call_deleted_without_to_tag_field_removed(watched: Watched) -> None:
    early = call(to_tag=b"", state=CallState.EARLY)
    watched.take(early)
    packet = deleted(early).encode(2)
    watched.cluster.deliver(packet._replace(payload=packet.payload[:-4]))
    assert watched.ids == []
    assert watched.dialogs.stats.payload_errors == 0


def test_call_unknown_deleted_counted(watched: Watched) -> None:
    watched.take(deleted(call()))
    assert watched.dialogs.stats.unknown_deletes == 1
    assert watched.changes == []


def test_call_expired_removed(watched: Watched) -> None:
    watched.take(call(expires=int(CAPTURED_AT) + 60))
    watched.unix.advance(59)
    watched.dialogs.expire()
    assert watched.ids == ["call-1"]
    watched.unix.advance(1)
    assert watched.ids == []
    watched.dialogs.expire()
    watched.dialogs.expire()
    assert watched.story == [("added", "message"), ("removed", "expired")]
    assert watched.dialogs.stats.expired == 1


def test_call_expired_on_arrival_removes_known_call(
    watched: Watched,
) -> None:
    watched.take(call())
    watched.take(update(expires=int(CAPTURED_AT) - 1))
    assert watched.ids == []
    assert watched.story[-1] == ("removed", "expired")
    watched.take(update(expires=int(CAPTURED_AT) - 1))
    assert watched.dialogs.stats.stale == 2


def test_call_expired_on_arrival_logged_with_both_times(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.take(call(expires=int(CAPTURED_AT) - 60))
    (record,) = caplog.records
    assert record.message.endswith(
        "call 'call-1' expired at 2026-11-22 20:44:52 UTC, the local time is 2026-11-22 20:45:52 "
        "UTC; compare the clocks of both hosts"
    )


@pytest.mark.parametrize(
    ("state", "expires", "lifetime"),
    [(CallState.EARLY, 1_000, 300), (CallState.CONFIRMED, 0, 43_200), (CallState.EARLY, 0, 43_200)],
)
def test_call_without_expiry_removed_after_default(
    watched: Watched, state: int, expires: int, lifetime: float
) -> None:
    watched.take(call(state=state, expires=expires))
    watched.unix.advance(lifetime - 1)
    assert watched.ids == ["call-1"]
    watched.unix.advance(1)
    assert watched.ids == []


def test_calls_full_evicts_oldest_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched(bounds=Bounds(max_entries=2))
    for number in range(5):
        watched.take(call(b"%d" % number))
    assert watched.ids == ["3", "4"]
    assert watched.dialogs.stats.evicted == 3
    assert watched.story.count(("removed", "evicted")) == 3
    assert [r.message for r in caplog.records] == [
        "dialogs: table of calls full: least recently updated entries evicted"
    ]


# -- profile counts --------------------------------------------------------------------------------


def test_profiles_summed_over_nodes(watched: Watched) -> None:
    watched.count(3, machine_id=2)
    watched.count(4, machine_id=3)
    watched.count(1, machine_id=3, value=b"other")
    watched.take(ProfileCounts((ProfileCount(b"inbound", None, 9),)))
    assert watched.dialogs.profiles() == {
        ("caller", "sipp"): 7,
        ("caller", "other"): 1,
        ("inbound", None): 9,
    }
    assert watched.dialogs.profile_size("caller", "sipp") == 7
    assert watched.dialogs.profile_size("caller") == 8
    assert watched.dialogs.profile_size("unknown") == 0


def test_profile_count_after_10_s_removed(watched: Watched) -> None:
    watched.count(3)
    watched.clock.advance(9)
    watched.count(3)
    watched.clock.advance(9.9)
    assert watched.dialogs.profile_size("caller") == 3
    watched.clock.advance(0.1)
    assert watched.dialogs.profile_size("caller") == 0
    watched.dialogs.expire()
    use = ProfileUse("caller", "sipp", 2, 3)
    assert watched.uses == [Change(None, use), Change(use, None, Reason.EXPIRED)]


def test_profile_count_0_removed(watched: Watched) -> None:
    watched.count(0)
    watched.count(1)
    watched.count(2)
    watched.count(0)
    assert [change.kind for change in watched.uses] == ["added", "updated", "removed"]
    assert watched.dialogs.profiles() == {}


def test_module_timeout_removes_counts_keeps_calls(watched: Watched) -> None:
    watched.take(call(), machine_id=2)
    watched.count(3, machine_id=2)
    watched.count(4, machine_id=3)
    calls, profiles = (registered["callback"] for registered in watched.cluster.registered)
    profiles(SERVER_TIMEOUT, None, 2)
    assert watched.dialogs.profiles() == {("caller", "sipp"): 4}
    assert watched.uses[-1].reason is Reason.SILENT
    assert watched.ids == ["call-1"]
    assert watched.dialogs.stats.timeouts == 1
    calls(SERVER_TIMEOUT, None, 2)
    assert watched.ids == ["call-1"]


def test_packet_of_muted_node_ignored(watched: Watched) -> None:
    packet = ProfileCounts((ProfileCount(b"caller", None, 1),)).encode(2)
    watched.cluster.notify(SERVER_TEMP_DISABLED, 2, received(packet))
    assert watched.dialogs.profiles() == {}
    assert watched.dialogs.stats.messages == 0


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_invalid_payload_counted_and_reported_once(watched: Watched, kind: int) -> None:
    watched.cluster.deliver(Packet("dialog", kind, 2, b"\1\2\3"))
    assert watched.dialogs.stats.payload_errors == 1
    (told,) = watched.cluster.bad_payloads
    assert told.startswith("dialog ")


@pytest.mark.parametrize("packet", [Packet("dialog", 9, 2), Packet("dialog", 3, 2, b"", 2)])
def test_unknown_type_or_version_ignored_and_counted(
    watched: Watched, packet: Packet, caplog: pytest.LogCaptureFixture
) -> None:
    watched.cluster.nodes = [node(2, cluster_id=7)]
    watched.cluster.deliver(packet)
    assert watched.dialogs.stats.ignored == 1
    (record,) = caplog.records
    assert (vars(record)["cluster"], vars(record)["url"]) == (7, "bin:127.0.0.1:1")


def test_callback_raising_counted_others_called(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(change: Change[Call]) -> None:
        raise RuntimeError("no")

    heard: list[Change[Call]] = []
    watched.dialogs.on_call(fail)
    watched.dialogs.on_call(heard.append)
    watched.take(call())
    watched.take(call(b"call-2"))
    assert watched.dialogs.stats.callback_errors == 2
    assert len(heard) == 2
    assert len(caplog.records) == 1


def test_callback_may_call_observer(watched: Watched) -> None:
    seen: list[int] = []
    watched.dialogs.on_call(lambda _: seen.append(len(watched.dialogs.calls())))
    watched.take(call())
    assert seen == [1]


def test_timer_removes_expired_calls() -> None:
    watched = Watched()
    watched.take(call(expires=int(CAPTURED_AT) + 60))
    watched.unix.advance(60)
    with watched.dialogs:
        wait_until(lambda: len(watched.changes) == 2, message="the call's removal")


# -- captured --------------------------------------------------------------------------------------


def test_captured_stream_leaves_expected_calls(watched: Watched) -> None:
    most = 0
    for packet in captured_packets():
        if packet.module == "dialog":
            watched.cluster.deliver(packet)
            most = max(most, len(watched.ids))
            assert len({found.sent.call_id for found in watched.dialogs.calls()}) == len(
                watched.ids
            )
    assert most == 3
    assert watched.ids == []
    assert watched.dialogs.profiles() == {}
    assert watched.story.count(("added", "message")) == 3
    assert watched.story.count(("removed", "message")) == 3
    assert max(change.new.calls for change in watched.uses if change.new) == 3
    stats = watched.dialogs.stats
    assert (stats.messages, stats.payload_errors, stats.ignored) == (198, 0, 0)
