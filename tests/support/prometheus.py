"""A private Prometheus that scrapes real processes, and is asked over its HTTP API."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, end_group, start, wait_until
from tests.support.programs import find_program

PROMETHEUS = find_program("prometheus")

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None,
    reason="prometheus is not installed (Debian: prometheus)",
)

START_TIMEOUT_S = EVENTUALLY_S
SCRAPE_S = 1


class Sample(NamedTuple):
    """One series of a query's answer."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """Prometheus on a free loopback port, with all it keeps in a temporary directory.

    Scrapes the metrics ports ``targets`` and evaluates ``rules`` (YAML) every second. A context
    manager; to be started from the main thread.
    """

    def __init__(self, targets: Iterable[int], rules: str) -> None:
        self._port = free_port()
        self._targets = [f"127.0.0.1:{port}" for port in targets]
        self._rules = rules
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="clusterer-prometheus-")

    def __enter__(self) -> Self:
        directory = Path(self._directory.name)
        (directory / "rules.yml").write_text(self._rules)
        every = f"{SCRAPE_S}s"
        configuration = {
            "global": {"scrape_interval": every, "evaluation_interval": every},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {"job_name": "clusterer", "static_configs": [{"targets": self._targets}]}
            ],
        }
        # JSON is YAML.
        (directory / "prometheus.yml").write_text(json.dumps(configuration))
        options = {
            "config.file": str(directory / "prometheus.yml"),
            "storage.tsdb.path": str(directory / "data"),
            "web.listen-address": f"127.0.0.1:{self._port}",
            "log.level": "warn",
        }
        log = directory / "log"
        words = [f"--{name}={value}" for name, value in options.items()]
        self._process = start([PROMETHEUS or "", *words], log)
        try:
            wait_until(self._ready, START_TIMEOUT_S, "Prometheus is ready")
        except BaseException:
            print(log.read_text(errors="replace"))
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            end_group(self._process)
        self._directory.cleanup()

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression comes to now."""
        answer = self._get("query", query=expression)
        return [
            Sample({k: v for k, v in each["metric"].items() if k != "__name__"}, float(value))
            for each in answer["result"]
            for _, value in [each["value"]]
        ]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self._get("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with how their last evaluation went."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """Return all targets with how their last scrape went."""
        found: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return found

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "Prometheus ended at once"
        with contextlib.suppress(OSError):
            return bool(self._get("targets"))
        return False

    def _get(self, what: str, **options: str) -> Any:
        words = urllib.parse.urlencode(options)
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{words}"
        with urllib.request.urlopen(url, timeout=EVENTUALLY_S) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        assert not found.get("warnings"), found["warnings"]
        return found["data"]
