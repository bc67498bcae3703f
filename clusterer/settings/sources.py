"""Where settings come from: a TOML file, CLUSTERER_* variables and the caller's own values."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from clusterer.errors import SettingsError
from clusterer.settings import CONFIG_VARIABLE, ENV_PREFIX, SECRETS, Settings, convert, variable_of

log = logging.getLogger(__name__)

ORIGINS_VARIABLE = "CLUSTERER_ORIGINS"
"""Names a variable in which `clusterer up` tells the console, in JSON, the origins of settings."""
DEFAULT = "default"

_MAX_SECRET = 65_536
"""Characters of a file that holds the value of a setting."""
_NEARLY = 0.92
"""Likeness of names of which one is the other misspelt: one or two letters differ."""

_NAMES = tuple(item.name for item in fields(Settings))
_URL = re.compile(r"(?:tcp|udp|sctp)://")
_MADE = re.compile(
    r"_SERVICE_HOST|_SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?"
)


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    config: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], object] = log.warning,
) -> Settings:
    """Merge all sources of settings.

    ``overrides`` wins over ``environ`` (default: the process's), which wins over the TOML file
    ``config`` (default: the file that CLUSTERER_CONFIG names). None values in ``overrides`` count
    as not given. ``warn`` gets a line for each variable that is ignored although a setting has its
    name. Raises `SettingsError` naming the setting and where it came from.
    """
    values: dict[str, Any] = {}
    for _, found in sources(overrides, config, environ, warn):
        values |= found
    return Settings(**values)


Source = tuple[Callable[[str], str], Mapping[str, Any]]
"""The origin of a setting by its name, and the values."""


def sources(
    overrides: Mapping[str, Any] | None,
    config: str | Path | None,
    environ: Mapping[str, str] | None,
    warn: Callable[[str], object],
) -> Iterator[Source]:
    """Yield each source: the origin of a setting by its name, and the values. The last one wins."""
    environ = os.environ if environ is None else environ
    path = config or environ.get(CONFIG_VARIABLE)
    if path:
        yield lambda _: str(path), _from_file(Path(path))
    variables = environ.keys()
    yield (
        lambda name: next(v for v in (variable_of(name), _file_variable(name)) if v in variables),
        _from_environment(environ, warn),
    )
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    yield (
        lambda _: "command line",
        {name: convert(name, value, "argument") for name, value in given.items()},
    )


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
    found = dict.fromkeys(_NAMES, DEFAULT)
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


def _file_variable(name: str) -> str:
    return f"{variable_of(name)}_FILE"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read settings from {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read settings from {path}: {error}") from error
    section = data.get("clusterer", data)
    if not isinstance(section, dict):
        raise SettingsError(f"{path}: 'clusterer' must be a table of settings")
    return {name: convert(name, value, str(path)) for name, value in section.items()}


def _from_environment(environ: Mapping[str, str], warn: Callable[[str], object]) -> dict[str, Any]:
    variables = {name: variable_of(name) for name in _NAMES}
    files = {name: _file_variable(name) for name in SECRETS}
    _check_spelling(environ, [CONFIG_VARIABLE, *variables.values(), *files.values()])
    links = {name: value for name, value in environ.items() if _is_service_link(name, value)}
    for variable in links.keys() & set(variables.values()):
        warn(_why_ignored(variable, links[variable]))
    found = {
        name: convert(name, environ[variable], variable)
        for name, variable in variables.items()
        if variable in environ and variable not in links
    }
    for name, variable in files.items():
        if variable in environ:
            if name in found:
                raise SettingsError(f"{variables[name]} and {variable} are both set: unset one")
            found[name] = convert(name, _secret(environ[variable], variable), variable)
    return found


def _secret(path: str, variable: str) -> str:
    """Return the text of a file without its last line feed; what it holds is in no error."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - an empty path must not become "."
            text = file.read(_MAX_SECRET + 1).decode()
    except OSError as error:
        raise SettingsError(f"cannot read {variable} ({path}): {error.strerror}") from error
    except ValueError:
        raise SettingsError(f"{variable} ({path}) holds no UTF-8 text") from None
    text = text.removesuffix("\n")
    if not text.strip() or len(text) > _MAX_SECRET:
        what = f"more than {_MAX_SECRET} characters" if text.strip() else "nothing"
        raise SettingsError(f"{variable} ({path}) holds {what}; write the URL into it")
    return text


def _check_spelling(environ: Mapping[str, str], variables: Sequence[str]) -> None:
    """Raise `SettingsError` for a variable that nearly has the name of a setting's.

    Others that begin like ours are no fault, nor is what Kubernetes makes for its services.
    """
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and name not in variables:
            if _is_service_link(name, value):
                continue
            meant = difflib.get_close_matches(name, variables, 1, _NEARLY)
            if meant:
                raise SettingsError(f"unknown variable {name}: did you mean {meant[0]}?")


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes has made a variable for a service, as Docker's links had them.

    Of a service ``clusterer-metrics`` these begin with ``CLUSTERER_METRICS_``, and
    ``CLUSTERER_METRICS_PORT`` is an URL such as ``tcp://10.0.0.7:9400``.
    """
    if name.endswith("_PORT") and _URL.match(value):
        return True
    return any(found.end() == len(name) for found in _MADE.finditer(name))


def _why_ignored(name: str, value: str) -> str:
    """Return why a variable with a setting's name is left out, and how to be rid of it."""
    service = name.removesuffix("_PORT").lower().replace("_", "-")
    return (
        f"ignored {name}={value:.80}: Kubernetes makes it for a service named {service}; set "
        "enableServiceLinks: false in the pod's spec, or give the service another name"
    )
