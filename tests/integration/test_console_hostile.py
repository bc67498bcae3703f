"""Texts from wire, table and Redis on the console's pages: escaped, and harmless."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.settings import Settings
from clusterer.store import keys
from tests.support.consoles import Served, served, watching
from tests.support.seeding import make_node, put_node

HOSTILE = '<script>alert(1)</script>"\'&` data-live id="x" \u202e\u2066\u200f {{ 7*7 }} </main>'
LONG = "<b>" + "x" * 65_536
PAGES = ("/overview", "/clusters/1-bin", "/clusters/1-bin/nodes/2", "/events", "/doctor")
ESCAPED = {
    "/overview": "&lt;b&gt;xxx",
    "/clusters/1-bin": "&lt;script&gt;alert",
    "/clusters/1-bin/nodes/2": "&lt;script&gt;alert",
    "/events": "&lt;script&gt;alert",
}
"""What a page shows in place of the texts."""


@pytest.fixture
def console(settings: Settings, context: Context, redis_client: redis.Redis) -> Iterator[Served]:
    """A console whose nodes, modules and events have hostile texts."""
    put_node(redis_client, make_node(1, description=HOSTILE, url=f"bin:{HOSTILE}:5566"))
    put_node(redis_client, make_node(2, description=LONG))
    set_status.run(context, 1, 2, 0, "bin", by=f"operator {HOSTILE}", reason=HOSTILE)
    event: dict[Any, Any] = {"version": 1, "by": LONG, "reason": LONG, "url": HOSTILE}
    event |= {"before": "up", "after": "down", "protocol": "bin", "machine_id": 2}
    event |= {"event": HOSTILE, "no_tries": 0, "failed_attempts": 3}
    redis_client.xadd(keys.events(1), event)
    redis_client.sadd(keys.INSTANCES, 1)
    for name in (HOSTILE, LONG, "ratelimit"):
        redis_client.hset(keys.modules(1), f"{name}:1", 10_000)
        redis_client.zadd(keys.last_seen(1, name, 1), {"2": 1_795_389_461_022})
    redis_client.hset(keys.modules(1), "heartbeat", 1_795_389_461_022)
    with served(settings) as made:
        yield made


def test_hostile_texts_are_escaped_on_every_page(console: Served) -> None:
    with console.client() as client:
        for path in PAGES:
            page = client.get(path)
            assert page.status_code == 200, path
            assert "<script>alert" not in page.text
            assert "<b>x" not in page.text
            assert page.text.count("</main>") == 1
            assert re.findall(r"<script(?![^>]* src=)", page.text) == []
            assert re.findall(r"\s(?:style|on\w+)=\"", page.text) == [], path
            assert client.get(f"/api/v1{path}").status_code == 200
            if path in ESCAPED:
                assert ESCAPED[path] in page.text


def test_hostile_texts_break_no_live_page(console: Served) -> None:
    with console.client() as client:
        for path in PAGES:
            with watching(client, path, "other") as events:
                found = events.next("changes")
                assert "x" not in found["fragments"]
                assert "<script>alert" not in "".join(found["fragments"].values())


@pytest.mark.parametrize(
    "path",
    [
        "/clusters/1-%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/clusters/99999999999999999999999-bin",
        f"/clusters/{'9' * 5000}-bin",
        "/clusters/1-%00%ff%ed%a0%80",
        "/clusters/1-bin/nodes/99999999999999999999",
        "/events?find=%3Cscript%3Ealert(1)%3C/script%3E",
        "/events?cluster=%3Cscript%3Ealert(1)%3C/script%3E",
        "/packets?node=%3Cscript%3Ealert(1)%3C/script%3E",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
        "/static/..%2f..%2fpage.py",
        "/static/%2e%2e/page.py",
        "/login?next=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
    ],
)
def test_hostile_addresses_are_answered_and_escaped(console: Served, path: str) -> None:
    with console.client() as client:
        page = client.get(path)
        assert page.status_code < 500, page.text
        assert "<script>alert" not in page.text
        assert "from __future__" not in page.text
