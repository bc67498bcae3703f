"""Links of 3.x clusters on the pages Cluster and Node, as HTML, as JSON and live."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis

from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.links import LinkRecord, LinkStore, Place
from tests.support import openapi
from tests.support.consoles import served, watching
from tests.support.seeding import make_node, put_node

Write = Callable[[int, Mapping[Place, LinkRecord]], None]

HERE = "/clusters/7-bin"
HOSTILE = '<script>alert(1)</script>"\'& data-live id="x" \u202e</main>'
SINCE = 1_795_389_461.022
LINKS = {
    (7, 1): LinkRecord("up", SINCE, 1, (2, 11), {"usrloc-contact-repl": 1, "dialog-dlg-repl": 0}),
    (7, 2): LinkRecord("probe", SINCE + 1, None, (1, 12)),
    (8, 5): LinkRecord("down", SINCE),
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, opensips_3_clusters="7")


@pytest.fixture
def write(settings: Settings, redis_client: redis.Redis) -> Iterator[Write]:
    """Of instances 11 and 12 in cluster 7, which has nodes 1 and 2 as well; cluster 1 is of 2.2.

    Writes links that stay, however slow the test is.
    """
    store = LinkStore(settings)

    def write(instance: int, links: Mapping[Place, LinkRecord]) -> None:
        store.write(instance, links)
        redis_client.persist(keys.links(instance))

    for machine_id in (1, 2, 11, 12):
        put_node(redis_client, make_node(machine_id, cluster_id=7))
    put_node(redis_client, make_node(1))
    redis_client.sadd(keys.INSTANCES, 11, 12)
    write(11, LINKS)
    write(12, {(7, 1): LinkRecord("down", SINCE, 11, (2, 11))})
    yield write
    store.close()


@pytest.fixture
def client(settings: Settings, write: Write) -> Iterator[httpx.Client]:
    with served(settings) as console, console.client() as made:
        yield made


def content(client: httpx.Client, path: str, route: str = "") -> dict[str, Any]:
    """Return the JSON of a page, which agrees with the OpenAPI document."""
    answer = client.get(f"/api/v1{path}")
    assert openapi.faults(f"/api/v1/clusters/{{cluster_id}}-{{proto}}{route}", answer) == []
    found: dict[str, Any] = answer.json()
    return found


def of_node(client: httpx.Client, machine_id: int) -> dict[str, Any]:
    return content(client, f"{HERE}/nodes/{machine_id}", "/nodes/{machine_id}")


def ends(found: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(each["instance"], each["machine_id"], each["state"]) for each in found["links"]]


def rows(html: str) -> list[list[str]]:
    """Return the cells of the table of links, without tags."""
    table = html.partition('aria-label="Table of links"')[2].partition("</table>")[0]
    return [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd] .*?</t[hd]>", row)]
        for row in re.findall(r"<tr id.*?</tr>", table, re.DOTALL)
    ]


def test_links_of_a_cluster_are_shown_faults_first(client: httpx.Client) -> None:
    found = content(client, HERE)
    assert found["opensips_3"] is True
    assert ends(found) == [(11, 2, "probe"), (12, 1, "down"), (11, 1, "up")]
    assert found["link_count"] == 3
    assert found["links"][2] == {
        "cluster_id": 7,
        "instance": 11,
        "machine_id": 1,
        "state": "up",
        "since": SINCE,
        "next_hop": 1,
        "neighbours": [2, 11],
        "capabilities": {"usrloc-contact-repl": 1, "dialog-dlg-repl": 0},
    }
    first, second, third = rows(client.get(HERE).text)
    assert first == ["11", "2", "probe", "2026-11-22 23:17:42 UTC", "\u2013", "1, 12", ""]
    assert second[:3] == ["12", "1", "down"]
    assert third[4:] == ["1", "2, 11", "dialog-dlg-repl (no data), usrloc-contact-repl"]


def test_links_of_a_node_are_those_from_and_to_it(client: httpx.Client) -> None:
    assert ends(of_node(client, 1)) == [(12, 1, "down"), (11, 1, "up")]
    assert ends(of_node(client, 2)) == [(11, 2, "probe")]
    assert ends(of_node(client, 12)) == [(12, 1, "down")]
    html = client.get(f"{HERE}/nodes/11").text
    assert [row[:2] for row in rows(html)] == [["11", "2"], ["11", "1"]]
    assert f'<a href="{HERE}/nodes/2">2</a></td>' in html


@pytest.mark.parametrize("path", ["/clusters/1-bin", "/clusters/1-bin/nodes/1"])
def test_links_are_absent_in_a_cluster_of_2_2(client: httpx.Client, path: str) -> None:
    found = client.get(f"/api/v1{path}").json()
    assert (found["opensips_3"], found["links"], found["link_count"]) == (False, [], 0)
    assert 'id="links"' not in client.get(path).text


def test_links_are_absent_without_the_setting(settings: Settings, write: Write) -> None:
    with served(replace(settings, opensips_3_clusters="")) as console, console.client() as client:
        assert content(client, HERE)["links"] == []
        assert 'id="links"' not in client.get(HERE).text


def test_links_without_a_running_instance_say_so(client: httpx.Client, write: Write) -> None:
    write(11, {})
    write(12, {})
    assert content(client, HERE)["links"] == []
    assert "No links: an instance has links while" in client.get(HERE).text


def test_links_beyond_the_most_are_counted(client: httpx.Client, write: Write) -> None:
    write(11, {(7, i): LinkRecord("up", SINCE, i) for i in range(1, 251)})
    found = content(client, HERE)
    assert (len(found["links"]), found["link_count"]) == (200, 251)
    assert ends(found)[0] == (12, 1, "down")
    assert "51 more links are not shown" in client.get(HERE).text
    assert len(of_node(client, 11)["links"]) == 100


@pytest.mark.parametrize("path", [HERE, f"{HERE}/nodes/11"])
def test_links_change_row_by_row_without_reload(
    client: httpx.Client, write: Write, path: str
) -> None:
    (version,) = re.findall(r'data-version="([^"]+)"', client.get(path).text)
    changed: dict[Place, LinkRecord] = {**LINKS, (7, 2): replace(LINKS[7, 2], next_hop=1)}
    with watching(client, path, version) as events:
        write(11, changed)
        for _ in range(20):
            fragments = events.next("changes")["fragments"]
            if "link-11-2" in fragments:
                assert "links" not in fragments, "the row alone"
                assert '<td data-label="Through">1</td>' in fragments["link-11-2"]
                assert "link-11-1" not in fragments
                return
    pytest.fail("the link did not change")


@pytest.mark.parametrize("path", [HERE, f"{HERE}/nodes/11"])
def test_links_with_hostile_capabilities_are_escaped(
    client: httpx.Client, write: Write, path: str
) -> None:
    names = {HOSTILE: 1, "\udcff\udcfe": 0, "\ud800": 1, "<b>" + "x" * 60_000: 1, "": 1}
    write(11, {(7, 1): LinkRecord("up", SINCE, 1, (), names)})
    page = client.get(path)
    assert page.status_code == 200
    assert "&lt;script&gt;alert" in page.text
    assert "<script>alert" not in page.text
    assert "<b>x" not in page.text
    assert page.text.count("</main>") == 1
    assert len(page.text) < 40_000, "long names are cut"
    (link,) = [
        each for each in client.get(f"/api/v1{path}").json()["links"] if each["next_hop"] == 1
    ]
    assert {"??", "?", HOSTILE} < link["capabilities"].keys()
    with watching(client, path, "other") as events:
        assert "x" not in events.next("changes")["fragments"]


@pytest.mark.parametrize("value", ['{"state": "up"}', "[" * 5_000, b"\xff", '{"since": NaN}'])
def test_links_that_cannot_be_used_are_left_out(
    client: httpx.Client, redis_client: redis.Redis, value: str | bytes
) -> None:
    redis_client.hset(keys.links(11), "7/2", value)
    redis_client.hset(keys.links(11), HOSTILE, value)
    redis_client.set(keys.links(12), HOSTILE)
    assert ends(content(client, HERE)) == [(11, 1, "up")]
    assert client.get(HERE).status_code == 200
