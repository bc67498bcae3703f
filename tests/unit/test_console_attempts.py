"""Failed logins are limited per address and per name."""

from __future__ import annotations

from clusterer.console.access.attempts import (
    MOST_KEYS,
    MOST_PER_ADDRESS,
    MOST_PER_NAME,
    WITHIN_S,
    Attempts,
)


def test_attempts_of_an_address_are_limited() -> None:
    attempts = Attempts()
    for at in range(MOST_PER_ADDRESS):
        assert attempts.wait_s("192.0.2.1", f"name {at}", at) == 0
        attempts.failed("192.0.2.1", f"name {at}", at)
    assert attempts.wait_s("192.0.2.1", "other", 20) == WITHIN_S - 20
    assert attempts.wait_s("192.0.2.2", "other", 20) == 0
    assert attempts.wait_s("192.0.2.1", "other", WITHIN_S + 1) == 0


def test_attempts_with_a_name_are_limited() -> None:
    attempts = Attempts()
    for at in range(MOST_PER_NAME):
        attempts.failed(f"192.0.2.{at}", "anna", 0)
    assert attempts.wait_s("198.51.100.1", "anna", 1) > 0
    assert attempts.wait_s("198.51.100.1", "bert", 1) == 0


def test_attempts_that_succeed_do_not_count() -> None:
    attempts = Attempts()
    for _ in range(MOST_PER_NAME * 2):
        attempts.failed("192.0.2.1", "anna", 0)
        attempts.succeeded("192.0.2.1", "anna")
    assert attempts.wait_s("192.0.2.1", "anna", 0) == 0


def test_attempts_remembered_are_bounded() -> None:
    attempts = Attempts()
    for number in range(MOST_KEYS):
        attempts.failed(str(number), str(number), 0)
    assert len(attempts._failed) == MOST_KEYS
