"""Failed logins are limited per address and per name."""

from __future__ import annotations

from clusterer.console.access.attempts import (
    MOST_KEYS,
    MOST_PER_ADDRESS,
    MOST_PER_BROWSER,
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
    attempts.failed("", "x" * 100_000, 0)
    assert sum(len(name) for _, name in attempts._failed) < 10 * MOST_KEYS


def test_attempts_of_an_ipv6_network_are_limited() -> None:
    attempts = Attempts()
    for at in range(MOST_PER_ADDRESS):
        attempts.failed(f"2001:db8::{at:x}", f"name {at}", 0)
    assert attempts.wait_s("2001:db8::ffff:1", "other", 1) > 0
    assert attempts.wait_s("2001:db8:0:1::1", "other", 1) == 0


def test_attempts_of_others_lock_no_known_browser_out() -> None:
    attempts = Attempts()
    for at in range(MOST_PER_NAME):
        attempts.failed(f"192.0.2.{at % 2}", "anna", 0)
    assert attempts.wait_s("192.0.2.1", "anna", 1) > 0
    assert attempts.wait_s("192.0.2.1", "anna", 1, "id") == 0
    for _ in range(MOST_PER_BROWSER):
        attempts.failed("192.0.2.1", "anna", 1, "id")
    assert attempts.wait_s("192.0.2.1", "anna", 1, "id") > 0
