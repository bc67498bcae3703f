"""The doctor of the console: one run at a time, whatever the number of viewers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from clusterer.services import Context
from clusterer.services import doctor as service
from clusterer.services.doctor import Finding, Level, shared_run
from clusterer.services.doctor.finding import ok
from clusterer.services.doctor.shared_run import DoctorRuns, Report
from clusterer.settings import Settings
from tests.support.processes import wait_until

SOON_S = 30


def ended(runs: DoctorRuns) -> Report:
    """Wait for the end of the run; return its report."""
    wait_until(lambda: runs.report().took_s is not None, SOON_S, "the end of the run")
    wait_until(lambda: runs.report().running_s is None, SOON_S)
    return runs.report()


def test_doctor_first_view_runs_all_checks(settings: Settings) -> None:
    with contextlib.closing(DoctorRuns(settings)) as runs:
        found = ended(runs)
    with contextlib.closing(Context(settings)) as context:
        checks = [each.check for each in service.run(context)]
    assert [each.check for each in found.findings] == checks
    assert all(each.advice for each in found.findings if each.level is Level.ERROR)


def test_doctor_without_redis_reports_the_error() -> None:
    with contextlib.closing(DoctorRuns(Settings(redis_url="redis://127.0.0.1:1"))) as runs:
        found = ended(runs)
    assert not found.is_healthy
    assert any("127.0.0.1:1" in each.text for each in found.findings)


def test_doctor_viewers_share_one_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_run, "PAUSE_S", 0.0)
    begun: list[Context] = []
    go_on = threading.Event()

    def run(context: Context) -> Iterator[Finding]:
        begun.append(context)
        yield ok("first", "of two")
        go_on.wait(SOON_S)
        yield ok("second", "of two")

    with contextlib.closing(DoctorRuns(settings, run)) as runs:
        wait_until(lambda: len(runs.report().findings) == 1, SOON_S, "the first finding")
        assert runs.report().running_s is not None
        assert not any(runs.begin() for _ in range(10))
        assert (runs.report().number, runs.begin(after=1)) == (1, False)
        go_on.set()
        assert len(ended(runs).findings) == 2
        assert not runs.begin(after=0)
        assert runs.begin(after=1)
        assert not runs.begin(after=1)
        assert len(runs.report().findings) == 2, "the last complete run is shown meanwhile"
        wait_until(lambda: runs.report().running_s is None, SOON_S)
    assert len(begun) == 2


def test_doctor_runs_are_spaced(settings: Settings) -> None:
    with contextlib.closing(DoctorRuns(settings, lambda context: iter(()))) as runs:
        assert runs.begin()
        ended(runs)
        assert not runs.begin()


def test_doctor_run_with_a_bug_ends_with_a_finding(settings: Settings) -> None:
    def run(context: Context) -> Iterator[Finding]:
        yield ok("first", "done")
        raise ZeroDivisionError("secret of a traceback")

    with contextlib.closing(DoctorRuns(settings, run)) as runs:
        found = ended(runs)
    assert [each.level for each in found.findings] == [Level.OK, Level.ERROR]
    assert "secret" not in found.findings[1].text
