"""The events that the console shows: read once for all viewers, filtered for each."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import redis

from clusterer.errors import StateUnavailable
from clusterer.services import Context
from clusterer.services.admin import event_feed
from clusterer.services.admin.event_feed import EventFeed, EventFilter, Events
from clusterer.services.admin.events import Filter
from clusterer.settings import Settings
from clusterer.store import keys

EVERYTHING = EventFilter()

_ids = itertools.count(int((time.time() - 600) * 1000))
"""Redis ms of the events: no two events have the same."""


@pytest.fixture
def feed(context: Context, monkeypatch: pytest.MonkeyPatch) -> EventFeed:
    """A feed that reads Redis at each call."""
    monkeypatch.setattr(event_feed, "EVERY_S", 0.0)
    return EventFeed(context)


def put(client: redis.Redis, *, cluster: int = 1, machine: int = 2, **more: Any) -> None:
    """Add an event; with a ``sender`` one of a path."""
    of = keys.path_events if "sender" in more else keys.events
    fields = {
        "protocol": "bin",
        "machine_id": machine,
        "url": f"bin:127.0.0.{machine}:1",
        "event": "probe failed",
        "by": "probe",
        "reason": "Connection refused",
        "before": "probing",
        "after": "disabled",
        "no_tries": 3,
        "failed_attempts": 3,
    }
    client.xadd(of(cluster), fields | more, id=f"{next(_ids)}-0")  # type: ignore[arg-type]


def shown(found: Events) -> list[tuple[int, int, str]]:
    return [(event.cluster_id, event.machine_id, event.reason) for event in found.events]


def test_feed_has_past_and_new_events_newest_first(
    feed: EventFeed, redis_client: redis.Redis
) -> None:
    assert feed.view(EVERYTHING).events == ()
    put(redis_client, machine=2, reason="a")
    put(redis_client, machine=3, reason="b", sender=1)
    assert shown(feed.view(EVERYTHING)) == [(1, 3, "b"), (1, 2, "a")]
    put(redis_client, cluster=9, machine=4, reason="c")
    found = feed.view(EVERYTHING, last=2)
    assert shown(found) == [(9, 4, "c"), (1, 3, "b")]
    assert (found.selected, found.kept, found.more) == (3, 3, False)


@pytest.mark.parametrize(
    ("wanted", "machines"),
    [
        (EventFilter(Filter(cluster_id=9)), [5]),
        (EventFilter(Filter(machine_id=3)), [4, 3]),
        (EventFilter(paths=True), [4]),
        (EventFilter(paths=False), [5, 3, 2]),
        (EventFilter(text="KERNEL"), [3]),
        (EventFilter(text="127.0.0.5"), [5]),
        (EventFilter(text="nothing has this"), []),
        (EventFilter(Filter(since=time.time() + 3600)), []),
    ],
)
def test_feed_filter_selects(
    feed: EventFeed, redis_client: redis.Redis, wanted: EventFilter, machines: list[int]
) -> None:
    put(redis_client, machine=2)
    put(redis_client, machine=3, reason="kernel update")
    put(redis_client, machine=4, sender=3)
    put(redis_client, machine=5, cluster=9)
    assert [event.machine_id for event in feed.view(wanted).events] == machines


def test_feed_reads_redis_once_for_many_viewers(
    context: Context, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "EVERY_S", 3600.0)
    put(redis_client)
    feed = EventFeed(context)
    feed.view(EVERYTHING)
    before = commands(redis_client)
    for _ in range(50):
        assert len(feed.view(EVERYTHING).events) == 1
    assert commands(redis_client) - before <= 2


def commands(client: redis.Redis) -> int:
    count: Any = client.info("stats")
    return int(count["total_commands_processed"])


def test_feed_is_bounded(
    context: Context, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "EVERY_S", 0.0)
    monkeypatch.setattr(event_feed, "KEPT", 5)
    bounded = EventFeed(context)
    for number in range(12):
        put(redis_client, reason=str(number))
    found = bounded.view(EVERYTHING)
    assert [event.reason for event in found.events] == ["11", "10", "9", "8", "7"]
    assert found.more
    put(redis_client, reason="12")
    assert [event.reason for event in bounded.view(EVERYTHING).events][:2] == ["12", "11"]


def test_feed_without_redis_says_so() -> None:
    with pytest.raises(StateUnavailable):
        EventFeed(Context(Settings(redis_url="redis://127.0.0.1:1"))).view(EVERYTHING)
