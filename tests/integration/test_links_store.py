"""Links of 3.x clusters in Redis: written, renewed, read, and values that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.badvalues import collected
from clusterer.store.links import LinkRecord, LinkStore

LINKS = {
    (1, 21): LinkRecord("up", 1_795_389_461.022, 21, (22, 23), {"dialog-dlg-repl": 1}),
    (1, 22): LinkRecord("down", 5.5, 21, (21,)),
    (7, 3): LinkRecord("probe", 0.0),
}


@pytest.fixture
def store(settings: Settings, redis_client: redis.Redis) -> Iterator[LinkStore]:
    made = LinkStore(settings)
    redis_client.sadd(keys.INSTANCES, 1, 2)
    yield made
    made.close()


def test_links_are_read_as_written(store: LinkStore) -> None:
    store.write(1, LINKS)
    assert store.links() == {1: LINKS}


def test_links_written_again_replace_the_others(store: LinkStore) -> None:
    store.write(1, LINKS)
    store.write(1, {(7, 3): LINKS[7, 3]})
    assert store.links() == {1: {(7, 3): LINKS[7, 3]}}
    store.write(1, {})
    assert store.links() == {}


def test_links_last_for_seconds_unless_renewed(store: LinkStore, redis_client: redis.Redis) -> None:
    assert not store.renew(1), "Redis has none"
    store.write(1, LINKS)
    assert 0 < redis_client.pttl(keys.links(1)) <= 10_000
    redis_client.pexpire(keys.links(1), 5_000)
    assert store.renew(1)
    assert redis_client.pttl(keys.links(1)) > 5_000


@pytest.mark.parametrize(
    "value",
    [
        b"oops\xff",
        "[]",
        "null",
        "[" * 50_000,
        "1" * 70_000,
        '{"state": "up"}',
        '{"state": "good", "since": 1, "next_hop": 3, "neighbours": [], "capabilities": {}}',
        '{"state": "up", "since": "1", "next_hop": 3, "neighbours": [], "capabilities": {}}',
        '{"state": "up", "since": NaN, "next_hop": 3, "neighbours": [], "capabilities": {}}',
        '{"state": "up", "since": 1e12, "next_hop": 3, "neighbours": [], "capabilities": {}}',
        '{"state": "up", "since": -1, "next_hop": 3, "neighbours": [], "capabilities": {}}',
        '{"state": "up", "since": 1, "next_hop": 0, "neighbours": [], "capabilities": {}}',
        '{"state": "up", "since": 1, "next_hop": 3, "neighbours": [true], "capabilities": {}}',
        '{"state": "up", "since": 1, "next_hop": 3, "neighbours": [], "capabilities": {"a": 2}}',
        '{"state": ["up"], "since": 1, "next_hop": 3, "neighbours": [], "capabilities": {}}',
    ],
)
def test_links_that_cannot_be_used_are_named(
    store: LinkStore, redis_client: redis.Redis, value: str | bytes
) -> None:
    store.write(1, LINKS)
    redis_client.hset(keys.links(1), "1/22", value)
    redis_client.hset(keys.links(1), "1/x", "{}")
    with collected() as bad:
        found = store.links()
    assert found == {1: {place: link for place, link in LINKS.items() if place != (1, 22)}}
    assert {each.place for each in bad} == {"field 1/22", "field"}


def test_links_of_a_wrong_type_are_named_and_replaced(
    store: LinkStore, redis_client: redis.Redis
) -> None:
    redis_client.set(keys.links(1), "oops")
    with collected() as bad:
        assert store.links() == {}
    assert [each.key for each in bad] == [keys.links(1)]
    store.write(1, LINKS)
    assert store.links() == {1: LINKS}
