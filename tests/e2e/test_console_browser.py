"""The console in a real browser, beside `clusterer up` with two instances."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import expect, log_in, tab, wait_for
from tests.support.consoles import PASSWORD, add_user
from tests.support.two_hosts import System, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NODE_2 = "/clusters/1-bin/nodes/2"


@pytest.fixture(scope="module")
def system(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The processes; without a browser none is started. Anna and Olga are operators."""
    with running(tmp_path_factory.mktemp("console") / "data") as started:
        for name, role in {"anna": "operate", "olga": "operate", "vera": "view"}.items():
            add_user(started.settings, name, role)
        yield started


def state(page: Page, word: str) -> None:
    """Wait until the page Node shows this state; the page is not loaded again."""
    expect(page.get_by_role("heading", name="State:")).to_contain_text(word)


def test_browser_logs_in_and_out(browser: Browser, system: System) -> None:
    with tab(browser, system.url) as page:
        page.goto("/events")
        expect(page).to_have_url(re.compile(r"/login\?next="))
        log_in(page, "vera", "wrong password")
        expect(page.get_by_role("alert")).to_contain_text("Name or password is wrong")
        log_in(page, "vera")
        expect(page.get_by_text("vera (view)")).to_be_visible()
        page.goto(NODE_2)
        expect(page.locator(".operate").first).to_be_hidden()
        page.get_by_role("button", name="Log out").click()
        page.goto("/events")
        expect(page).to_have_url(re.compile(r"/login\?next="))


def test_killed_node_is_seen_without_reload(browser: Browser, system: System) -> None:
    with tab(browser, system.url) as page:
        log_in(page, "vera")
        page.goto(NODE_2)
        state(page, "up")
        page.evaluate("window.loadedOnce = true")
        system.kill_node_2()
        state(page, "probing")
        state(page, "disabled")
        system.start_node_2()
        state(page, "up")
        assert page.evaluate("window.loadedOnce"), "the page was not loaded again"
        page.goto("/events?node=2&cluster=1")
        for word in ("probing", "disabled"):
            expect(page.locator(f"#events .state-{word}").first).to_be_visible()


def test_node_is_taken_down_with_reason(browser: Browser, system: System) -> None:
    with tab(browser, system.url) as page, tab(browser, system.url) as watching:
        log_in(watching, "vera")
        watching.goto("/events?find=kernel")
        log_in(page, "anna")
        for status, word in (("0", "down"), ("1", "up")):
            page.goto(f"{NODE_2}/status")
            page.locator("select[name=status]").select_option(status)
            page.get_by_label("Reason").fill(f"kernel update: {word}")
            page.get_by_role("button", name="Continue").click()
            page.locator("button[value=do]").click()
            expect(page.get_by_role("status")).to_contain_text(f"is {word}")
            row = watching.locator("#events tr", has_text=f"kernel update: {word}")
            expect(row).to_contain_text("operator anna")
            expect(row.locator(f".state-{word}")).to_be_visible()
        page.goto(NODE_2)
        state(page, "up")


def test_keyboard_alone_does_all(browser: Browser, system: System) -> None:
    """Log in, skip the menu, visit each page, and take a node down and up, without a mouse."""
    with tab(browser, system.url) as page:
        page.goto("/overview")
        page.keyboard.type("anna")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"/overview$"))
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"/overview#main$"))
        menu = page.get_by_role("navigation", name="Pages").get_by_role("link")
        for title in menu.all_text_contents():
            follow(page, menu.get_by_text(title, exact=True))
            expect(page.locator("a[aria-current=page]")).to_have_text(title)
        follow(page, menu.first)
        follow(page, page.locator("#cluster-1 a"))
        reach(page, page.locator("#node-2 a"))
        page.evaluate(
            """document.addEventListener("live:replaced", event => {
                if (event.target.id === "node-2") window.replaced = true;
            })"""
        )
        wait_for(page, lambda: bool(page.evaluate("window.replaced")), "the row is replaced")
        expect(page.locator("#node-2 a")).to_be_focused()
        page.keyboard.press("Enter")
        for key, word in (("d", "down"), ("u", "up")):
            follow(page, page.get_by_role("link", name="Set status"))
            reach(page, page.locator("select[name=status]"))
            page.keyboard.press(key)
            reach(page, page.get_by_label("Reason"))
            page.keyboard.type("by keyboard")
            follow(page, page.get_by_role("button", name="Continue"))
            follow(page, page.locator("button[value=do]"))
            expect(page.get_by_role("status")).to_contain_text(f"is {word}")
            page.goto(NODE_2)


def follow(page: Page, element: Locator) -> None:
    """Go to a link or button with the key Tab, and press it with Enter."""
    reach(page, element)
    page.keyboard.press("Enter")


def reach(page: Page, element: Locator) -> None:
    """Press Tab until an element has the focus, which must be visible."""
    expect(element).to_be_visible()
    for _ in range(100):
        page.keyboard.press("Tab")
        if element.evaluate("element => element === document.activeElement"):
            outline = element.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline != "none", "the focus is visible"
            return
    raise AssertionError(f"the key Tab does not reach {element}")


def test_two_operators_do_not_overwrite_each_other(browser: Browser, system: System) -> None:
    with tab(browser, system.url) as anna, tab(browser, system.url) as olga:
        for page, name in ((anna, "anna"), (olga, "olga")):
            log_in(page, name)
            page.goto(f"{NODE_2}/edit")
            page.locator("[name=description]").fill(f"Description of {name}")
            page.get_by_label("Reason").fill("inventory")
            page.get_by_role("button", name="Continue").click()
            expect(page.get_by_role("heading", name="This will happen")).to_be_visible()
        anna.locator("button[value=do]").click()
        expect(anna.get_by_role("status")).to_contain_text("Done")
        olga.locator("button[value=do]").click()
        expect(olga.get_by_role("alert")).to_contain_text("changed")
        anna.goto(NODE_2)
        expect(anna.locator("main")).to_contain_text("Description of anna")


def test_packets_are_filtered_and_paused(browser: Browser, system: System) -> None:
    with tab(browser, system.url) as page:
        log_in(page, "vera")
        page.goto("/packets?receiver=1")
        expect(page.locator("#packets tr").first).to_contain_text("ratelimit")
        page.get_by_role("link", name="Pause").click()
        expect(page.get_by_role("heading", name="Paused at packet")).to_be_visible()
        with page.expect_download() as started:
            page.get_by_role("link", name="Download as a recording").click()
        assert "clusterer recording" in started.value.path().read_text()
        page.get_by_role("link", name="Continue").click()
        page.get_by_label("Sender nodes").fill("1")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("#packets")).to_contain_text("No packet yet")
        expect(page.locator("#packets-state")).to_contain_text("selects 0")
