"""The pages of the console, in the order of the menu."""

from __future__ import annotations

from clusterer.console.page import Page
from clusterer.console.pages import settings

PAGES: tuple[Page, ...] = (settings.PAGE,)
