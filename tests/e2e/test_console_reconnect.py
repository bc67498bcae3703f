"""An open page of the console while the console is away, comes back, and has other users."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from clusterer.console.server import Listen
from clusterer.services import Context
from clusterer.services.admin import console_users
from clusterer.settings import Settings
from clusterer.store.console_users import USER
from tests.support.browser import expect, log_in, tab
from tests.support.consoles import add_user, served
from tests.support.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_page_reconnects_and_leads_to_the_login(
    browser: Browser, settings: Settings, context: Context
) -> None:
    add_user(settings)
    listen = Listen(port=free_port())
    with tab(browser, f"http://127.0.0.1:{listen.port}") as page:
        with served(settings, listen=listen):
            log_in(page, "anna")
            page.goto("/events")
            expect(page.locator("#connection")).to_be_hidden()
        expect(page.locator("#connection")).to_contain_text("No connection since")
        with served(settings, listen=listen):
            expect(page.locator("#connection")).to_be_hidden()
        console_users.remove(context, USER, "anna")
        add_user(settings, "olga")
        with served(settings, listen=listen):
            expect(page).to_have_url(re.compile(r"/login\?next=%2Fevents"))
