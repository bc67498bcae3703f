"""The pages of the console, in the order of the menu, its downloads and buttons."""

from __future__ import annotations

from clusterer.console.page import Download, Page, Press
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

DOWNLOADS: tuple[Download, ...] = (packets.RECORDING,)

PRESSES: tuple[Press, ...] = (
    Press("doctor:run", "/doctor/run", lambda console: console.doctor_runs.begin(), "/doctor"),
)
