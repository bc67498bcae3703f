"""Another process sees what an instance's observers hold: inquiries over a real Redis."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from clusterer.errors import ClustererError
from clusterer.listener import Listing
from clusterer.listener import inquiries as answering
from clusterer.listener.inquiries import Inquiries, answered
from clusterer.payloads import ProfileCount, ProfileCounts
from clusterer.services import Context
from clusterer.services.admin import inquiries as service
from clusterer.services.admin.inquiries import Listings
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.inquiries import (
    MAX_ANSWER,
    MOST_ENTRIES,
    Answer,
    Held,
    Inquiry,
    InquiryStore,
)
from tests.support.listening import peer
from tests.support.observing import call, contact, observing
from tests.support.processes import wait_until

SOON_S = 20


def words(*texts: str) -> Listing:
    """Return a listing of texts."""
    return Listing(
        "words",
        lambda: len(texts),
        lambda: list(texts),
        lambda each: str(each).encode("utf-8", "surrogateescape"),
        lambda each: {"word": each},
    )


@pytest.fixture
def store(settings: Settings) -> InquiryStore:
    return InquiryStore(settings)


def test_observers_entries_are_seen_from_outside(settings: Settings, context: Context) -> None:
    seen = Listings(context)
    with observing(settings) as running, peer(running.port, machine_id=1) as connection:
        for message in (
            call(b"call-1", from_uri=b"sip:Alice@example.net"),
            call(b"call-2"),
            contact(b"sip:a@192.0.2.1", user_agent=b"Phone \xff<b>"),
            ProfileCounts((ProfileCount(b"caller", b"sipp", 3),)),
        ):
            connection.sendall(message.encode(1).encode())
        expected = {2: [Held("calls", 1, 2), Held("contacts", 1, 1), Held("profiles", 1, 1)]}
        wait_until(lambda: seen.held() == expected, SOON_S, "all listings with their entries")

        calls = seen.entries(2, "calls", 1, "", 10)
        assert [each["call_id"] for each in calls.entries] == ["call-2", "call-1"]
        assert (calls.entries[0]["node"], calls.entries[0]["state"]) == (1, "answered, no ACK")
        found = seen.entries(2, "calls", 1, "ALICE@", 10)
        assert [each["call_id"] for each in found.entries] == ["call-1"]
        assert (found.matching, found.total) == (1, 2)
        (phone,) = seen.entries(2, "contacts", 1, "", 10).entries
        assert (phone["uri"], phone["user_agent"]) == ("sip:a@192.0.2.1", "Phone \ufffd<b>")
        (use,) = seen.entries(2, "profiles", 1, "SIPP", 10).entries
        assert use == {"node": 1, "profile": "caller", "value": "sipp", "calls": 3}
    assert seen.held() == {}, "an instance that ends takes its listings back"


def test_instance_without_observers_has_no_thread(redis_client: redis.Redis) -> None:
    assert not [each for each in threading.enumerate() if each.name == "clusterer-inquiries"]
    assert not redis_client.keys("clusterer:listings:*")


@pytest.mark.parametrize(
    ("text", "most", "expected", "matching"),
    [
        ("", 2, ["ccc", "Bab"], 3),
        ("a", 9, ["Bab", "aaa"], 2),
        ("A", 1, ["Bab"], 2),
        ("\xe4", 9, [], 0),
        ("", 0, [], 3),
    ],
)
def test_answer_is_cut_and_counts_all(
    text: str, most: int, expected: list[str], matching: int
) -> None:
    found = answered(words("aaa", "Bab", "ccc"), Inquiry("words", 1, text, most))
    assert [each["word"] for each in found.entries] == expected
    assert (found.matching, found.total) == (matching, 3)


def test_answer_bounds_long_texts() -> None:
    found = answered(words("x" * 65_000, "\udcff"), Inquiry("words", 1))
    assert [each["word"] for each in found.entries] == ["\ufffd", "x" * 300]


def test_answer_too_long_gets_fewer_entries(store: InquiryStore, redis_client: redis.Redis) -> None:
    inquiry = Inquiry("words", 1)
    entries = [{"word": "x" * 50_000} for _ in range(100)]
    store.answer(inquiry, Answer(entries, 100, 100, 1.0))
    (packed,) = redis_client.lrange(keys.answer(inquiry.token), 0, -1)
    assert MAX_ANSWER / 4 < len(packed) <= MAX_ANSWER


@pytest.mark.parametrize(
    "value",
    [
        "no json",
        "[]",
        "{}",
        "[" * 200_000,
        '{"kind": "words", "cluster_id": 1, "token": "../../x"}',
        '{"kind": "words", "cluster_id": true, "token": "' + "a" * 32 + '"}',
        '{"kind": "words", "cluster_id": 1, "most": "9", "token": "' + "a" * 32 + '"}',
        '{"kind": "words", "cluster_id": 1, "other": 1, "token": "' + "a" * 32 + '"}',
    ],
    ids=lambda value: value[:40],
)
def test_inquiry_with_bad_value_is_skipped(
    store: InquiryStore, redis_client: redis.Redis, value: str
) -> None:
    good = Inquiry("words", 1, "text", 7)
    redis_client.rpush(keys.inquiries(1), value)
    assert store.next(1, 0.1) is None
    assert store.ask(1, good, 0.1) is None
    assert store.next(1, 0.1) == good


@pytest.mark.parametrize("value", ["no json", "{}", '{"entries": [1]}', '{"entries": {}}'])
def test_answer_with_bad_value_is_no_answer(
    store: InquiryStore, redis_client: redis.Redis, value: str
) -> None:
    inquiry = Inquiry("words", 1)
    redis_client.rpush(keys.answer(inquiry.token), value)
    assert store.ask(1, inquiry, 0.1) is None


def test_inquiry_text_and_number_are_bounded(store: InquiryStore) -> None:
    store.ask(1, Inquiry("words", 1, "x" * 1_000, 10**9), 0.1)
    found = store.next(1, 0.1)
    assert found is not None
    assert (len(found.text), found.most) == (200, MOST_ENTRIES)


def test_inquiries_leave_nothing_behind(store: InquiryStore, redis_client: redis.Redis) -> None:
    for _ in range(40):
        store.ask(1, Inquiry("words", 1), 0.01)
    assert redis_client.llen(keys.inquiries(1)) == 16
    assert 0 < redis_client.pttl(keys.inquiries(1)) <= 5_000


def test_instance_without_answer_is_named(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WAIT_S", 0.1)
    with pytest.raises(ClustererError, match="instance 7 did not answer within"):
        Listings(context).entries(7, "words", 1, "", 10)


def test_viewers_share_an_answer_and_old_one_serves(
    context: Context,
    store: InquiryStore,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redis_client.sadd(keys.INSTANCES, 1)
    monkeypatch.setattr(service, "WAIT_S", 1.0)
    monkeypatch.setattr(service, "AGE_S", 3600.0)
    inquiries = Inquiries(1, store)
    inquiries.add(1, words("aaa"))
    inquiries.start()
    seen = Listings(context)
    wait_until(lambda: seen.held() == {1: [Held("words", 1, 1)]}, SOON_S)
    first = wait_until(lambda: entries_or_none(seen), SOON_S)
    assert seen.entries(1, "words", 1, "", 10) is first
    inquiries.stop()
    monkeypatch.setattr(service, "AGE_S", 0.0)
    assert seen.entries(1, "words", 1, "", 10) is first


def entries_or_none(seen: Listings) -> Answer | None:
    try:
        return seen.entries(1, "words", 1, "", 10)
    except ClustererError:
        return None


def test_instance_rests_after_a_long_answer(
    context: Context, store: InquiryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inquiries cost an instance a bounded share of a core, however many come."""
    monkeypatch.setattr(answering, "SHARE", 0.001)
    inquiries = Inquiries(1, store)
    inquiries.add(1, words(*(str(number) for number in range(50_000))))
    inquiries.start()
    asked = InquiryStore(context.settings, context.redis)
    assert asked.ask(1, Inquiry("words", 1, "nothing"), SOON_S) is not None
    began = time.monotonic()
    assert asked.ask(1, Inquiry("words", 1), SOON_S) is not None
    assert time.monotonic() - began > 1, "the thread rested for 2 s"
    inquiries.stop()


def test_listings_return_after_redis_lost_its_data(
    context: Context, store: InquiryStore, redis_client: redis.Redis
) -> None:
    inquiries = Inquiries(1, store)
    inquiries.add(1, words("aaa"))
    inquiries.start()
    seen = Listings(context)
    redis_client.sadd(keys.INSTANCES, 1)
    wait_until(seen.held, SOON_S)
    redis_client.flushall()
    redis_client.sadd(keys.INSTANCES, 1)
    wait_until(seen.held, SOON_S, "announced again")
    inquiries.stop()
