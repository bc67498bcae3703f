"""Every page in a real browser: screenshots, barriers, and what fits into the window.

Screenshots of every page go to the directory that PICTURES names; without it none are taken, which
saves 9 s of CPU. Look at them after a change of a page:
`PICTURES=/tmp/pictures scripts/test tests/e2e/test_console_pictures.py`.
The pictures of docs/console.md are overview.png, cluster.png and packets.png of that directory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from clusterer.payloads import ProfileCount, ProfileCounts
from tests.support.browser import PHONE, WIDE, expect, log_in, serious_faults, tab
from tests.support.consoles import add_user
from tests.support.observing import call, contact
from tests.support.two_hosts import System, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGES = {
    "overview": "/overview",
    "cluster": "/clusters/1-bin",
    "node": "/clusters/1-bin/nodes/2",
    "history": "/clusters/1-bin/nodes/2/history",
    "packets": "/packets?receiver=1",
    "paused": "/packets/paused?receiver=1&until=5",
    "calls": "/calls?kind=calls",
    "contacts": "/calls?kind=contacts",
    "profiles": "/calls?kind=profiles",
    "events": "/events",
    "doctor": "/doctor",
    "settings": "/settings",
    "missing": "/clusters/9-bin",
    "login": "/login",
    "status": "/clusters/1-bin/nodes/2/status",
    "edit": "/clusters/1-bin/nodes/2/edit",
    "remove": "/clusters/1-bin/nodes/2/remove",
    "add": "/clusters/add",
    "reload": "/reload",
    "forget": "/forget",
}

WANTED = os.environ.get("PICTURES")

ZOOMED = WIDE // 2
"""CSS pixels of a window of 1,280 pixels at 200 % zoom."""


@pytest.fixture(scope="module")
def system(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A cluster with calls and contacts, and with a node that was down."""
    with running(tmp_path_factory.mktemp("console") / "data") as started:
        add_user(started.settings, "anna")
        soon = int(time.time()) + 3_600
        started.observe(
            *(
                call(
                    b"a84b4c76e6%d@pc33.example.net" % number,
                    from_uri=b"sip:%s@example.net" % name,
                    start=int(time.time()) - 60 * number,
                    expires=soon,
                )
                for number, name in enumerate((b"alice", b"bob", b"carol"))
            ),
            *(
                contact(b"sip:%s@192.0.2.%d:5060" % (name, number), aor=name, expires=soon)
                for number, name in enumerate((b"alice", b"bob"), 7)
            ),
            ProfileCounts(
                (ProfileCount(b"caller", b"alice", 3), ProfileCount(b"inbound", None, 2))
            ),
        )
        yield started


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(WANTED) if WANTED else tmp_path_factory.mktemp("pictures")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.mark.parametrize(
    ("width", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")]
)
def test_page_fits_and_has_no_serious_barrier(
    browser: Browser,
    system: System,
    pictures: Path,
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    faults = []
    with tab(browser, system.url, width=width, color_scheme=scheme, bypass_csp=True) as page:
        log_in(page, "anna")
        for name, path in PAGES.items():
            show(page, name, path)
            if WANTED:
                page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png", full_page=True)
            if (width, scheme) != (PHONE, "dark"):  # its colours and its layout were looked at
                faults += [f"{name}: {each}" for each in serious_faults(page)]
            faults += [f"{name}: {each}" for each in too_wide(page)]
            page.set_viewport_size({"width": ZOOMED, "height": 900})
            faults += [f"{name} at 200 %: {each}" for each in too_wide(page)]
            page.set_viewport_size({"width": width, "height": 900})
    assert not faults, "\n".join(faults)


def too_wide(page: Page) -> list[str]:
    """Return the fault of a page that does not fit into the width of the window."""
    wide, fits = page.evaluate("[document.scrollingElement.scrollWidth, window.innerWidth]")
    return [f"{wide} pixels wide, {fits} fit"] if wide > fits else []


def show(page: Page, name: str, path: str) -> None:
    """Open a page, and wait for its content."""
    page.goto(path)
    expect(page.locator("h1")).to_be_visible()
    if name == "packets":
        expect(page.locator("#packets tr").nth(5)).to_be_visible()
    if name == "doctor":
        expect(page.locator("#doctor-state")).to_contain_text("checked at")


def test_pages_are_readable_without_javascript(browser: Browser, system: System) -> None:
    with tab(browser, system.url, java_script_enabled=False) as page:
        log_in(page, "anna")
        for path in PAGES.values():
            page.goto(path)
            expect(page.locator("h1")).to_be_visible()
        page.goto("/packets?receiver=1&node=2")
        page.reload()
        expect(page.locator("#packets tr").first).to_contain_text("ratelimit")
        assert "UTC" in page.locator("#packets time").first.inner_text()


def test_pictures_of_the_docs_show_a_dead_node(
    browser: Browser, system: System, pictures: Path
) -> None:
    """The last test of the module: it ends node 2."""
    with tab(browser, system.url, width=1000) as page:
        log_in(page, "anna")
        page.set_viewport_size({"width": 1000, "height": 640})
        page.goto("/packets?receiver=1")
        expect(page.locator("#packets tr").nth(8)).to_be_visible()
        page.screenshot(path=pictures / "packets.png")
        system.kill_node_2()
        page.goto("/overview")
        expect(page.locator("#alarms")).to_contain_text("node 2 is disabled")
        page.screenshot(
            path=pictures / "overview.png",
            clip={"x": 0, "y": 0, "width": 1000, "height": 410},  # without this host's paths
        )
        page.goto("/clusters/1-bin")
        expect(page.locator("#map")).to_contain_text("2 disabled")
        page.screenshot(path=pictures / "cluster.png")
