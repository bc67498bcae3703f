"""A real browser for tests: Debian's chromium, driven by playwright.

Playwright's own download of browsers is not used. Without chromium or playwright the tests are
skipped; with CI=true they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.consoles import PASSWORD
from tests.support.programs import missing, require_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PATIENCE_MS = 30_000
"""Longest wait for an element: other tests may use the cores."""

WIDE, PHONE = 1280, 360
"""Widths of windows, in CSS pixels."""

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser; skip the test where there is none."""
    path = require_program("chromium")
    try:
        from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415 - may be missing
    except ModuleNotFoundError:
        missing("playwright")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=_ARGUMENTS, timeout=2 * PATIENCE_MS
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Browser, url: str, *, width: int = WIDE, **options: Any) -> Iterator[Page]:
    """Open a window with cookies of its own; ``url`` is the base of the paths to visit.

    ``options``: of playwright's `new_context`, such as ``color_scheme="dark"``. At the end of the
    block no error of a script and no violation of the content security policy may have come.
    """
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": 900},
        timezone_id="Europe/Paris",
        **options,
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if _is_fault(message) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
        assert not errors, errors
    finally:
        context.close()


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fill in the console's login form."""
    page.goto("/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def expect(found: Locator | Page) -> Any:
    """Return playwright's assertions, which wait, about an element or a page."""
    from playwright.sync_api import expect as asserted  # noqa: PLC0415 - may be missing

    return asserted(found)


def _is_fault(message: Any) -> bool:
    # A server that ends, or a connection that is cut, is part of some tests.
    return message.type == "error" and "Failed to load resource" not in message.text


def serious_faults(page: Page) -> list[str]:
    """Return what axe-core finds on the page: barriers of impact serious or critical.

    The window must have been opened with ``bypass_csp``: axe-core is put into the page.
    """
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - may be missing

    found = Axe().run(page, options={"resultTypes": ["violations"]})
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in found.response["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def wait_for(page: Page, condition: Callable[[], bool], what: str) -> None:
    """Wait until ``condition`` holds, and let the page work meanwhile."""
    for _ in range(PATIENCE_MS // 200):
        if condition():
            return
        page.wait_for_timeout(200)
    raise AssertionError(f"not within {PATIENCE_MS / 1000:g} s: {what}")
