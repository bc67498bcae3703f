"""The page Settings: the settings in force."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from clusterer.console.console import Console
from clusterer.console.page import Page, Parameters
from clusterer.runtime.logs import hidden
from clusterer.settings import Settings


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return name, value and description of each setting; passwords are hidden."""
    values = console.settings
    return {
        "settings": [
            {
                "name": item.name,
                "value": hidden(str(getattr(values, item.name))),
                "about": item.metadata["about"],
            }
            for item in fields(Settings)
        ]
    }


PAGE = Page("settings", "/settings", "Settings", load, "settings.html")
