"""The pages of the console, in the order of the menu: one module each."""

from __future__ import annotations

from clusterer.console.page import Page
from clusterer.console.pages import (
    calls,
    cluster,
    doctor,
    events,
    node,
    overview,
    packets,
    settings,
)

PAGES: tuple[Page, ...] = (
    overview.PAGE,
    cluster.PAGE,
    node.PAGE,
    node.HISTORY,
    packets.PAGE,
    packets.PAUSED,
    calls.PAGE,
    events.PAGE,
    doctor.PAGE,
    settings.PAGE,
)
