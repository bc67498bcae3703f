"""Overview, Cluster and Node in a real browser: charts, the map, barriers, narrow windows."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import redis

from clusterer.console.views import STATIC
from clusterer.membership import State
from clusterer.services import Context
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.history import HistoryStore, Sample
from clusterer.store.links import LinkRecord, LinkStore
from tests.support.browser import PHONE, WIDE, expect, serious_faults, tab
from tests.support.cluster import CLUSTER
from tests.support.consoles import Served, served
from tests.support.seeding import make_node, put_node

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NODES = 40
HERE = "/clusters/1-bin"
OPENSIPS_3 = "/clusters/7-bin"
PATHS = (
    "/overview",
    HERE,
    f"{HERE}/nodes/2",
    f"{HERE}/nodes/2/history",
    OPENSIPS_3,
    f"{OPENSIPS_3}/nodes/11",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def console(settings: Settings, context: Context, redis_client: redis.Redis) -> Iterator[Served]:
    """Of 40 nodes, of which some are not up; node 2 has samples. Cluster 7 is of OpenSIPS 3.x."""
    for machine_id in range(1, NODES + 1):
        failing = (
            {"state": State.PROBING, "no_tries": machine_id % 4} if machine_id % 5 == 0 else {}
        )
        changes = failing | {"description": "x" * 150, "host": "127.0.0.1"}
        put_node(redis_client, make_node(machine_id, **changes))  # type: ignore[arg-type]
    store = HistoryStore(settings, context.redis)
    for number in range(12):
        store.record(CLUSTER, {2: Sample(number * 70, number * 9, number, 0, number % 4)}, 3600.0)
    add_links(settings, redis_client)
    with served(replace(settings, opensips_3_clusters="7")) as made:
        yield made


def add_links(settings: Settings, client: redis.Redis) -> None:
    """Add instance 11 with a link of each state, which stay however long the browser takes."""
    client.sadd(keys.INSTANCES, 11)
    capabilities = {"dialog-dlg-repl": 1, "usrloc-contact-repl": 0, "x" * 150: 1}
    links = {}
    for machine_id, state in enumerate(("up", "probe", "down"), start=1):
        put_node(client, make_node(machine_id, cluster_id=7, host="127.0.0.1"))
        others = tuple(range(1, NODES))
        links[7, machine_id] = LinkRecord(state, 1_795_389_461.0, 1, others, capabilities)
    put_node(client, make_node(11, cluster_id=7, host="127.0.0.1"))
    with contextlib.closing(LinkStore(settings)) as store:
        store.write(11, links)
    client.persist(keys.links(11))


def overlapping(page: Page) -> list[list[str]]:
    """Return the pairs of labels of the map that cover each other, as the browser draws them."""
    found: list[list[str]] = page.evaluate(
        """() => {
            const found = [];
            const texts = [...document.querySelectorAll("svg.map text")];
            const boxes = texts.map((each) => each.getBBox());
            boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
                const apart = a.x + a.width <= b.x || b.x + b.width <= a.x
                    || a.y + a.height <= b.y + 2 || b.y + b.height <= a.y + 2;
                if (!apart) found.push([texts[i].textContent, texts[i + j + 1].textContent]);
            }));
            return found;
        }"""
    )
    return found


def test_map_labels_do_not_overlap_as_drawn(browser: Browser, console: Served) -> None:
    with tab(browser, console.url) as page:
        page.goto(HERE)
        expect(page.locator("svg.map text")).to_have_count(NODES)
        assert overlapping(page) == []


def test_charts_of_a_node_are_drawn(browser: Browser, console: Served) -> None:
    with tab(browser, console.url) as page:
        page.goto(f"{HERE}/nodes/2")
        expect(page.locator("#charts canvas")).to_have_count(3)
        expect(page.locator("#charts")).to_contain_text("Backlog in packets")
        page.goto(f"{HERE}/nodes/3")
        expect(page.locator("#charts")).to_have_text("No samples yet.")


def test_node_without_javascript_has_samples_as_a_table(browser: Browser, console: Served) -> None:
    with tab(browser, console.url, java_script_enabled=False) as page:
        page.goto(f"{HERE}/nodes/2")
        page.get_by_role("link", name="Samples as a table").click()
        expect(page.locator("tbody tr")).to_have_count(11)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_serious_barrier(browser: Browser, console: Served, scheme: str) -> None:
    faults = []
    for width in (WIDE, PHONE):
        with tab(browser, console.url, width=width, bypass_csp=True, color_scheme=scheme) as page:
            for path in PATHS:
                page.goto(path)
                faults += [f"{width} {path}: {each}" for each in serious_faults(page)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("width", [PHONE, WIDE // 2], ids=["phone", "zoom of 200 %"])
def test_pages_never_scroll_sideways(browser: Browser, console: Served, width: int) -> None:
    with tab(browser, console.url, width=width) as page:
        for path in PATHS:
            page.goto(path)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, path


def test_scripts_and_styles_are_small() -> None:
    sizes = {each.name: len(gzip.compress(each.read_bytes())) for each in STATIC.iterdir()}
    scripts = sum(size for name, size in sizes.items() if name.endswith(".js"))
    assert scripts <= 60_000, sizes
    assert sum(sizes.values()) <= 100_000, sizes
