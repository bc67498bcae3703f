"""Messages about one call out of order, as OpenSIPS 2.2's processes send them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.modules.call_order import ENDED_MEMORY_S
from clusterer.modules.dialog import Dialogs
from clusterer.payloads import CallState, DialogDeleted, DialogState, Message, decode
from tests.support.fake_cluster import FakeClock, FakeCluster
from tests.support.observing import CAPTURED_AT, call, captured_packets, update


class Observed:
    """A dialog observer, and the states that it reported, by call-id."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.clock = FakeClock()
        self.dialogs = Dialogs(self.cluster, 7, clock=self.clock, unix_clock=FakeClock(CAPTURED_AT))
        self.states: dict[str, list[int]] = {}
        self.dialogs.on_call(
            lambda change: self.states.setdefault(change.value.call_id, []).append(
                change.new.sent.state if change.new else CallState.DELETED
            )
        )
        self.dialogs.start()
        self.dialogs.stop()

    def take(self, *messages: Message, machine_id: int = 2) -> None:
        for message in messages:
            self.cluster.deliver(message.encode(machine_id))

    @property
    def up(self) -> list[tuple[int, int]]:
        """State and user flags of each current call."""
        return [(found.sent.state, found.sent.user_flags) for found in self.dialogs.calls()]


@pytest.fixture
def observed() -> Observed:
    return Observed()


def deletion(of: DialogState | None = None) -> DialogDeleted:
    of = of or call()
    return DialogDeleted(of.call_id, of.from_tag, of.to_tag)


def test_created_of_known_call_ignored(observed: Observed) -> None:
    observed.take(update(user_flags=1))
    observed.take(call(), call(state=CallState.CONFIRMED, user_flags=9), machine_id=3)
    assert observed.up == [(4, 1)]
    assert [found.machine_id for found in observed.dialogs.calls()] == [2]
    assert observed.states == {"call-1": [4]}
    assert observed.dialogs.stats.stale == 2


@pytest.mark.parametrize("known", [2, 3, 4])
@pytest.mark.parametrize("sent", [1, 2, 3, 4])
def test_update_to_older_state_ignored(observed: Observed, known: int, sent: int) -> None:
    observed.take(update(state=known), update(state=sent, user_flags=1))
    assert observed.up == ([(known, 0)] if sent < known else [(sent, 1)])


def test_update_of_same_state_applied(observed: Observed) -> None:
    observed.take(update(), update(user_flags=1), update(user_flags=2))
    assert observed.up == [(4, 2)]


@pytest.mark.parametrize("state", [-1, 0, 6, 2**31 - 1])
def test_unknown_state_allows_later_update(observed: Observed, state: int) -> None:
    observed.take(update(), update(state=state), update(user_flags=1))
    assert observed.up == [(4, 1)]


def test_early_state_after_confirmed_ignored(observed: Observed) -> None:
    observed.take(update(to_tag=b"", state=CallState.EARLY), call(state=CallState.UNCONFIRMED))
    assert observed.up == [(2, 0)]


@pytest.mark.parametrize("late", [call(), update(), update(to_tag=b""), call(to_tag=b"")])
@pytest.mark.parametrize("ended_by", [deletion(), update(state=CallState.DELETED)])
def test_late_message_does_not_restore_ended_call(
    observed: Observed, late: Message, ended_by: Message
) -> None:
    observed.take(call(), ended_by, late)
    assert observed.up == []
    assert observed.dialogs.stats.stale == 1


@pytest.mark.parametrize("differs", [{"start": 1_795_380_352}, {"dialog_id": 1}])
def test_reused_ids_make_new_call(observed: Observed, differs: dict[str, Any]) -> None:
    again: dict[str, Any] = {"user_flags": 1} | differs
    observed.take(call(), update(), deletion(), call(**again))
    assert observed.up == [(3, 1)]
    observed.take(update(user_flags=7))  # of the first call, late
    assert observed.up == [(3, 1)]
    observed.take(update(**again), deletion(), deletion())
    assert observed.up == []


def test_second_deletion_allows_new_call(observed: Observed) -> None:
    observed.take(call(), deletion(), deletion(), call(dialog_id=1))
    assert observed.up == [(3, 0)]


@pytest.mark.parametrize("first", [(), (call(), update())])
def test_ended_call_forgotten_after_2_s(observed: Observed, first: tuple[Message, ...]) -> None:
    observed.take(*first, deletion())
    observed.clock.advance(ENDED_MEMORY_S - 0.1)
    observed.take(call())
    assert observed.up == []
    observed.clock.advance(0.1)
    observed.take(call())
    assert observed.up == [(3, 0)]


@pytest.mark.parametrize(
    "order", list(permutations([call(), update(), update(user_flags=1), deletion()]))
)
def test_messages_in_any_order_end_call(observed: Observed, order: Sequence[Message]) -> None:
    observed.take(*order)
    assert observed.up == []
    told = observed.states.get("call-1", [])
    assert told == sorted(told)


@cache
def captured() -> tuple[Message, ...]:
    found = (decode(packet) for packet in captured_packets() if packet.module == "dialog")
    return tuple(each for each in found if isinstance(each, DialogState | DialogDeleted))


@given(st.permutations(captured()))
def test_captured_calls_in_any_order_end(order: Sequence[Message]) -> None:
    observed = Observed()
    observed.take(*order)
    assert observed.up == []
    assert all(told == sorted(told) for told in observed.states.values())


@given(st.permutations(captured()))
def test_captured_calls_in_any_order_reach_latest_state(order: Sequence[Message]) -> None:
    """Deletions come last, as with 2.2.8: before them each call is confirmed."""
    observed = Observed()
    observed.take(*(each for each in order if isinstance(each, DialogState)))
    assert [state for state, _ in observed.up] == [4, 4, 4]
    observed.take(*(each for each in order if isinstance(each, DialogDeleted)))
    assert observed.up == []
    assert observed.dialogs.stats.unknown_deletes == 0
