"""The pages of the console, in the order of the menu, and its downloads."""

from __future__ import annotations

from pathlib import Path

from clusterer.console.console import Console
from clusterer.console.page import Download, File, Page, Parameters
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


def _openapi(_console: Console, _parameters: Parameters) -> File:
    return File(_OPENAPI.read_bytes(), "application/json")


_OPENAPI = Path(__file__).with_name("openapi.json")

DOWNLOADS: tuple[Download, ...] = (
    packets.RECORDING,
    Download("openapi", "/api/v1/openapi.json", _openapi),
)
