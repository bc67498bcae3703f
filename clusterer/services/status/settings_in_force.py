"""The settings of a process, with their sources, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from clusterer.endpoint import public_url
from clusterer.errors import SettingsError
from clusterer.settings import SECRETS, Settings
from clusterer.settings.sources import DEFAULT


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting."""

    name: str
    value: str
    """As it is in force; of a URL, without user and password."""
    source: str
    """``default``, ``command line``, the path of a file, or the name of a variable."""
    about: str


def in_force(settings: Settings, origins: Mapping[str, str]) -> list[Shown]:
    """Return all settings; ``origins``: as `clusterer.settings.sources.origins` returns them."""
    return [
        Shown(
            item.name,
            _shown(settings, item.name),
            origins.get(item.name, DEFAULT),
            str(item.metadata["about"]),
        )
        for item in fields(Settings)
    ]


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if name in SECRETS:
        return public_url(settings) if name == "redis_url" else _public_database(settings)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _public_database(settings: Settings) -> str:
    from clusterer.provisioning.database import Database  # noqa: PLC0415 - 0.2 s that few processes need

    try:
        return Database(settings).name
    except SettingsError:
        return "***"
