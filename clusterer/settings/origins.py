"""Where each setting comes from: default, file, variable or command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from clusterer.settings import Settings, sources, variable_of

ORIGINS_VARIABLE = "CLUSTERER_ORIGINS"
"""Names a variable in which `clusterer up` tells the console, in JSON, the origins of settings."""
DEFAULT = "default"


def origins(
    overrides: Mapping[str, Any] | None = None,
    *,
    config: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return where `load_settings` takes each setting from: ``default``, ``command line``, the path
    of the file, or the name of the variable. Of variables that a parent set for all settings, the
    origins are those of the parent, see `ORIGINS_VARIABLE`.
    """
    environ = os.environ if environ is None else environ
    handed = _handed_origins(environ.get(ORIGINS_VARIABLE, ""))
    found = dict.fromkeys((item.name for item in fields(Settings)), DEFAULT)
    for origin, values in sources(overrides, config, environ, lambda _: None):
        found |= {name: origin(name) for name in values}
    return {
        name: handed.get(name, origin) if origin == variable_of(name) else origin
        for name, origin in found.items()
    }


def _handed_origins(text: str) -> dict[str, str]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, str)}
