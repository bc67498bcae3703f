"""``python -m tests.support.stubbed MODULE ARGS...``: MODULE with stubs for all services.

For tests of the processes around the services. Each stub prints its name when it runs. How the
delivery engine behaves is the environment variable STUB_ENGINE: "return" (at once), "wait" (until
asked to stop), "ignore" (asked to stop, it goes on), "away" (Redis is not there),
"file" (until the file STUB_FILE is there).
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clusterer
from clusterer.errors import StateUnavailable
from tests.support.processes import wait_until

SERVICES = ("probe", "timeouts", "sweep", "sync")


class Context:
    """Stands in for `clusterer.services.Context`."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        print("context made", flush=True)

    def close(self) -> None:
        print("context closed", flush=True)


class Engine:
    """Stands in for `clusterer.delivery.Engine`."""

    def __init__(self, settings: Any, queue_name: str, meter: Any = None) -> None:
        print(f"engine for {queue_name}", flush=True)

    def run(self, stop: Any, heartbeat: Callable[[], None]) -> None:
        behaviour = os.environ.get("STUB_ENGINE", "return")
        print(f"engine runs: {behaviour}", flush=True)
        heartbeat()
        if behaviour == "away":
            raise StateUnavailable("stubbed away")
        if behaviour == "wait":
            stop.wait(60)
        if behaviour == "ignore":
            threading.Event().wait(60)
        if behaviour == "file":
            wait_until(Path(os.environ["STUB_FILE"]).exists)
        print(f"engine ran, stop {stop.is_set()}", flush=True)

    def close(self) -> None:
        print("engine closed", flush=True)


def install() -> None:
    """Put the stubs where the job functions import the real ones from."""
    services: Any = types.ModuleType("clusterer.services")
    services.__path__ = [str(Path(clusterer.__file__).with_name("services"))]  # for all others
    services.Context = Context
    sys.modules["clusterer.services"] = services
    periodic = importlib.import_module("clusterer.services.periodic")
    for name in SERVICES:
        service: Any = types.ModuleType(f"clusterer.services.periodic.{name}")
        service.run = _announcer(name)
        setattr(periodic, name, service)
        sys.modules[service.__name__] = service
    delivery: Any = types.ModuleType("clusterer.delivery")
    delivery.__path__ = [str(Path(clusterer.__file__).with_name("delivery"))]
    delivery.Engine = Engine
    sys.modules["clusterer.delivery"] = delivery


def _announcer(name: str) -> Callable[..., None]:
    return lambda *arguments: print(f"{name} ran", flush=True)


if __name__ == "__main__":
    install()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
