"""Names are resolved together, in bounded time, and always to the same address."""

from __future__ import annotations

import socket
import threading
from time import monotonic

import pytest

from clusterer.provisioning.names import Names, system_lookup
from tests.support.processes import EVENTUALLY_S, LATE_S


def test_lowest_ipv4_address_is_taken_whatever_the_order() -> None:
    answers = {"a": ["::1", "10.0.0.10", "10.0.0.9"], "b": ["10.0.0.9", "10.0.0.10"], "c": ["::2"]}
    names = Names(lambda name: answers[name])
    names.resolve(answers)
    assert names.addresses == {"a": "10.0.0.9", "b": "10.0.0.9", "c": "::2"}
    assert names.failures == {}


def test_loopback_address_is_taken_only_without_another() -> None:
    answers = {
        "debian": ["127.0.1.1", "192.0.2.3"],
        "six": ["127.0.1.1", "2001:db8::1"],
        "own": ["::1", "127.0.1.1"],
    }
    names = Names(lambda name: answers[name])
    names.resolve(answers)
    assert names.addresses == {"debian": "192.0.2.3", "six": "2001:db8::1", "own": "127.0.1.1"}


def test_present_address_stays_while_the_name_leads_there() -> None:
    names = Names(lambda name: ["10.0.0.9", "10.0.0.10", "127.0.1.1"])
    names.present = {"a": {"10.0.0.10"}, "b": {"10.0.0.11"}, "c": {"127.0.1.1"}}
    names.resolve(["a", "b", "c", "d"])
    assert names.addresses == {
        "a": "10.0.0.10",
        "b": "10.0.0.9",
        "c": "10.0.0.9",
        "d": "10.0.0.9",
    }


def test_addresses_that_no_machine_can_have_are_passed_over() -> None:
    answers = {
        "blocked": ["0.0.0.0", "::"],  # noqa: S104 - what filtering name servers answer
        "half": ["fe80::1%2", "255.255.255.255", "2001:db8::1"],
    }
    names = Names(lambda name: answers[name])
    names.resolve(answers)
    assert names.addresses == {"half": "2001:db8::1"}
    assert names.failures == {"blocked": "0.0.0.0 is not the address of one host"}


def test_failure_has_the_resolvers_words() -> None:
    def lookup(name: str) -> list[str]:
        if name == "odd":
            raise UnicodeError("label too long")
        if name == "none":
            return []
        raise socket.gaierror(-2, "Name or service not known")

    names = Names(lookup)
    names.resolve(["gone", "odd", "none"])
    assert names.addresses == {}
    assert names.failures == {
        "gone": "Name or service not known",
        "odd": "label too long",
        "none": "it has no address",
    }


def test_name_is_asked_for_once() -> None:
    asked: list[str] = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        return ["10.0.0.1"]

    names = Names(lookup)
    names.resolve(["a", "a"])
    names.resolve(["a", "b"])
    names.resolve([])
    assert sorted(asked) == ["a", "b"]


def test_slow_names_hold_up_neither_the_others_nor_the_reload() -> None:
    release = threading.Event()

    def lookup(name: str) -> list[str]:
        if name.startswith("slow"):
            release.wait(EVENTUALLY_S)
        return ["10.0.0.1"]

    names = Names(lookup, timeout_s=0.3)
    began = monotonic()
    names.resolve([f"slow{i}" for i in range(20)] + [f"quick{i}" for i in range(100)])
    assert monotonic() - began < 2 + LATE_S
    release.set()
    assert len(names.addresses) == 100
    assert names.failures["slow0"] == "no answer within 0.3 s"
    assert len(names.failures) == 20


def test_system_knows_localhost() -> None:
    names = Names()
    names.resolve(["localhost"])
    assert names.addresses == {"localhost": "127.0.0.1"}
    with pytest.raises(OSError, match=r"not known|failure|No address"):
        system_lookup("no-such-host.invalid")
