"""Loops that run for ever: a failed round is noted, and the next one comes."""

from __future__ import annotations

import asyncio

import pytest

from clusterer.errors import StateUnavailable
from clusterer.runtime import rounds
from clusterer.runtime.rounds import Rounds


def test_guard_with_an_exception_counts_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    loop = Rounds("test 1")
    assert rounds.failures()["test 1"] == 0
    for _ in range(3):
        with loop.guard():
            raise ValueError("a bug")
    assert rounds.failures()["test 1"] == 3
    assert caplog.text.count("test 1: a round failed: ValueError: a bug; continuing") == 1
    assert "Traceback" in caplog.text


def test_guard_with_an_error_of_ours_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with Rounds("test 2").guard():
        raise StateUnavailable("Redis is away")
    assert caplog.messages == ["test 2: a round failed: Redis is away; continuing"]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("request_", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_guard_with_a_request_to_end_lets_it_pass(request_: type[BaseException]) -> None:
    with pytest.raises(request_), Rounds("test 3").guard():
        raise request_
    assert rounds.failures()["test 3"] == 0


def test_failed_with_two_kinds_logs_each(caplog: pytest.LogCaptureFixture) -> None:
    loop = Rounds("test 4")
    for queue in ("a", "b", "a"):
        loop.failed(ValueError(queue), (queue,))
    assert len(caplog.messages) == 2
