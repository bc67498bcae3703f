"""Command lines and environments of the system's own processes."""

from __future__ import annotations

import os
import sys

from clusterer.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings, as_environment

# -P: a directory 'workers' or 'scheduler' where the user happens to be must not be run instead.
_PYTHON = (sys.executable, "-P", "-m")


def node_command() -> tuple[str, ...]:
    """Return the command that runs one instance."""
    return (*_PYTHON, "clusterer", "node")


def console_command(port: int) -> tuple[str, ...]:
    """Return the command that serves the console on a port of the loopback address."""
    return (*_PYTHON, "clusterer", "console", "--port", str(port))


def worker_command(kind: str) -> tuple[str, ...]:
    """Return the command that runs one worker; ``kind`` is one of `settings.WORKER_KINDS`."""
    return (*_PYTHON, "workers", kind)


def scheduler_command() -> tuple[str, ...]:
    """Return the command that runs one scheduler."""
    return (*_PYTHON, "scheduler")


def child_environment(settings: Settings) -> dict[str, str]:
    """Return our environment with exactly these settings in it, for a child."""
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) and name != CONFIG_VARIABLE
    }
    return others | {"PYTHONUNBUFFERED": "1"} | as_environment(settings)
