"""The console in a real browser, beside `clusterer up` with two instances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import expect, serious_faults, tab
from tests.support.two_hosts import System, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def system(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The processes; without a browser none is started."""
    with running(tmp_path_factory.mktemp("console") / "data") as started:
        yield started


def test_packets_are_seen_live_and_filtered(browser: Browser, system: System) -> None:
    with tab(browser, system.url) as page:
        page.goto("/packets?receiver=1")
        expect(page.locator("#packets tr").first).to_contain_text("ratelimit")
        page.get_by_label("Sender nodes").fill("1")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("#packets")).to_contain_text("No packet yet")


def test_axe_core_finds_nothing_serious(browser: Browser, system: System) -> None:
    with tab(browser, system.url, bypass_csp=True) as page:
        faults = []
        for path in ("/packets?receiver=1", "/calls", "/events", "/doctor", "/settings"):
            page.goto(path)
            faults += [f"{path}: {each}" for each in serious_faults(page)]
    assert not faults, "\n".join(faults)
