"""The page Settings: the settings in force, and where each value comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from clusterer.console.console import Console
from clusterer.console.page import Page, Parameters
from clusterer.services.status.settings_in_force import in_force


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return name, value, source and description of each setting; secrets are masked."""
    return {"settings": [asdict(each) for each in in_force(console.settings, console.origins)]}


PAGE = Page("settings", "/settings", "Settings", load, "settings.html", live=False)
