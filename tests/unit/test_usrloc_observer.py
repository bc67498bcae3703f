"""The observer of usrloc: contacts that other nodes replicate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clusterer.ids import PROTO_BIN, SERVER_TIMEOUT
from clusterer.modules.usrloc import Bounds, Change, Contact, Usrloc
from clusterer.payloads import (
    ContactDeleted,
    ContactState,
    ContactUpdated,
    Message,
    RecordDeleted,
    RecordInserted,
)
from clusterer.wire import Packet
from tests.support.cluster import node
from tests.support.fake_cluster import FakeClock, FakeCluster
from tests.support.observing import CAPTURED_AT, captured_packets, contact
from tests.support.processes import wait_until


class Watched:
    """An observer on a fake cluster, and the changes that its callback received."""

    def __init__(self, **options: Any) -> None:
        self.cluster = FakeCluster()
        self.unix = FakeClock(CAPTURED_AT)
        self.clock = FakeClock()
        self.usrloc = Usrloc(self.cluster, 7, clock=self.clock, unix_clock=self.unix, **options)
        self.changes: list[Change[Contact]] = []
        self.usrloc.on_contact(self.changes.append)
        self.usrloc.start()
        self.usrloc.stop()

    def take(self, message: Message, machine_id: int = 2) -> None:
        self.cluster.deliver(message.encode(machine_id))

    @property
    def uris(self) -> list[str]:
        return [found.uri for found in self.usrloc.contacts()]

    @property
    def story(self) -> list[tuple[str, str]]:
        return [(change.kind, change.reason.value) for change in self.changes]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def deletion(of: ContactState, **changes: Any) -> ContactDeleted:
    message = ContactDeleted(of.domain, of.aor, of.contact, of.call_id, of.cseq)
    return replace(message, **changes)


def test_start_registers_without_timeout_with_auth_check(watched: Watched) -> None:
    (registered,) = watched.cluster.registered
    del registered["callback"]
    assert registered == {
        "module_name": "ul",
        "proto": PROTO_BIN,
        "timeout": 0,
        "auth_check": True,
        "cluster_id": 7,
    }


def test_contact_inserted_then_deleted_removed(watched: Watched) -> None:
    watched.take(RecordInserted(b"location", b"user1"))
    watched.take(contact())
    (found,) = watched.usrloc.contacts()
    assert (found.domain, found.aor, found.uri) == ("location", "user1", "sip:a@192.0.2.1")
    assert (found.user_agent, found.expires, found.machine_id) == ("sipp", 1_795_380_936, 2)
    assert len(watched.usrloc) == 1
    watched.take(deletion(contact()))
    assert watched.usrloc.contacts() == []
    assert watched.changes == [Change(None, found), Change(found, None)]


def test_contact_updated_reports_old_and_new(watched: Watched) -> None:
    watched.take(contact())
    values = contact(cseq=2, expires=int(CAPTURED_AT) + 900)
    watched.take(ContactUpdated(*(getattr(values, name) for name in values.shown())), 3)
    (_, change) = watched.changes
    assert change.old is not None
    assert change.new is not None
    assert (change.old.sent.cseq, change.new.sent.cseq) == (1, 2)
    assert (change.kind, change.new.machine_id) == ("updated", 3)
    assert len(watched.uris) == 1


def test_contacts_with_other_domain_aor_or_uri_distinct(watched: Watched) -> None:
    for made in (
        contact(),
        contact(b"sip:b@192.0.2.1"),
        contact(aor=b"user2"),
        contact(domain=b"other"),
    ):
        watched.take(made)
    assert len(watched.uris) == 4
    user = watched.usrloc.contacts("user1")
    assert [found.uri for found in user] == ["sip:a@192.0.2.1", "sip:b@192.0.2.1"]
    assert len(watched.usrloc.contacts(b"user1", "other")) == 1
    assert watched.usrloc.contacts("user3") == []


def test_record_deleted_removes_all_contacts(watched: Watched) -> None:
    for made in (contact(), contact(b"sip:b@192.0.2.1"), contact(aor=b"user2")):
        watched.take(made)
    watched.take(RecordDeleted(b"location", b"user1"))
    assert [found.aor for found in watched.usrloc.contacts()] == ["user2"]
    assert watched.story[-2:] == [("removed", "message")] * 2


def test_contact_unknown_deleted_counted(watched: Watched) -> None:
    watched.take(deletion(contact()))
    assert watched.usrloc.stats.unknown_deletes == 1
    assert watched.changes == []


def test_contact_expired_removed(watched: Watched) -> None:
    watched.take(contact(expires=int(CAPTURED_AT) + 60))
    watched.unix.advance(60)
    assert watched.usrloc.contacts("user1") == watched.usrloc.contacts() == []
    watched.usrloc.expire()
    assert watched.story == [("added", "message"), ("removed", "expired")]


def test_contact_without_expiry_stays(watched: Watched) -> None:
    watched.take(contact(expires=0))
    watched.unix.advance(10**9)
    watched.usrloc.expire()
    assert len(watched.uris) == 1


def test_contact_expired_on_arrival_not_kept(watched: Watched) -> None:
    watched.take(contact())
    watched.take(contact(expires=int(CAPTURED_AT), cseq=2))
    assert watched.uris == []
    stats = watched.usrloc.stats
    assert (stats.expired_on_arrival, stats.stale, stats.expired) == (1, 0, 1)
    assert watched.story[-1] == ("removed", "expired")


def test_contact_expired_on_arrival_logged_with_both_times(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.cluster.nodes = [node(2, cluster_id=7)]
    for number in range(3):
        watched.take(contact(b"sip:%d\n" % number, expires=int(CAPTURED_AT) - 3_600))
    watched.clock.advance(10)
    watched.take(contact(b"sip:x", expires=-(2**63)))
    head, here = "usrloc node 2 at 127.0.0.2: packet dropped: contact", "2026-11-22 20:45:52 UTC"
    tail = f"the local time is {here}; compare the clocks of both hosts"
    first, last = (record.message for record in caplog.records)
    assert first == rf"{head} 'sip:0\n' of 'user1' expired at 2026-11-22 19:45:52 UTC, {tail}"
    assert last.startswith(f"{head} 'sip:x' of 'user1' expired at UNIX time -{2**63}, {tail}")
    assert last.endswith(" (and 2 more like this)")
    assert vars(caplog.records[0])["url"] == "bin:127.0.0.1:1"
    assert watched.usrloc.stats.expired_on_arrival == 4
    assert watched.changes == []


def test_contact_lower_cseq_ignored(watched: Watched) -> None:
    watched.take(contact(cseq=5))
    watched.take(contact(cseq=4, user_agent=b"old"))
    watched.take(deletion(contact(), cseq=4))
    assert watched.usrloc.contacts()[0].sent.cseq == 5
    assert watched.usrloc.stats.stale == 2
    assert watched.usrloc.stats.unknown_deletes == 0


def test_contact_new_call_id_restarts_cseq(watched: Watched) -> None:
    watched.take(contact(cseq=5))
    watched.take(contact(cseq=1, call_id=b"another"))
    assert watched.usrloc.contacts()[0].sent.cseq == 1
    watched.take(deletion(contact(), cseq=1, call_id=b"another"))
    assert watched.uris == []


def test_contacts_full_evicts_oldest() -> None:
    watched = Watched(bounds=Bounds(max_entries=2))
    for number in range(4):
        watched.take(contact(b"sip:%d" % number))
    assert watched.uris == ["sip:2", "sip:3"]
    assert watched.usrloc.stats.evicted == 2


def test_invalid_payload_counted_and_reported(watched: Watched) -> None:
    for kind in (1, 2, 3, 4, 5):
        watched.cluster.deliver(Packet("ul", kind, 2, b"\xff\xff\xff\xff"))
    watched.cluster.deliver(Packet("ul", 6, 2))
    assert watched.usrloc.stats.payload_errors == 5
    assert watched.usrloc.stats.ignored == 1
    assert len(watched.cluster.bad_payloads) == 5
    assert "ul record inserted: field 'domain'" in watched.cluster.bad_payloads[0]


def test_contact_aor_not_utf8_found_by_text(watched: Watched) -> None:
    watched.take(contact(aor=b"us\xe9r"))
    (found,) = watched.usrloc.contacts()
    assert watched.usrloc.contacts(found.aor) == [found]
    assert watched.usrloc.contacts(b"us\xe9r") == [found]


def test_module_timeout_keeps_contacts(watched: Watched) -> None:
    watched.take(contact())
    watched.cluster.notify(SERVER_TIMEOUT, 2)
    assert len(watched.uris) == 1


def test_timer_removes_expired_contacts() -> None:
    watched = Watched()
    watched.take(contact())
    watched.unix.advance(1_000)
    with watched.usrloc:
        wait_until(lambda: len(watched.changes) == 2, message="the contact's removal")


def test_captured_stream_leaves_expected_contacts(watched: Watched) -> None:
    for packet in captured_packets():
        if packet.module == "ul":
            watched.cluster.deliver(packet)
    assert [kind for kind, _ in watched.story] == ["added", "updated", "removed"]
    assert watched.usrloc.stats.messages == 5
    assert watched.usrloc.stats.unknown_deletes == 0
