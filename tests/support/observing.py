"""Observers that serve, and messages for them: captured messages and changed copies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from clusterer import Clusterer, Settings
from clusterer.modules.dialog import Dialogs
from clusterer.modules.usrloc import Usrloc
from clusterer.payloads import (
    CallState,
    ContactInserted,
    DialogCreated,
    DialogUpdated,
    Message,
    decode,
)
from clusterer.wire import FrameDecoder, Packet
from tests.support.cluster import load, node
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S
from tests.support.vectors import captured_stream

CAPTURED_AT = 1_795_380_352.0
"""UNIX time at which the captured calls were up and the captured contacts registered."""


def captured_packets() -> Iterator[Packet]:
    """Yield all packets of the captured stream."""
    return FrameDecoder().feed(captured_stream()[0])


@cache
def captured_message(kind: type[Message]) -> Any:
    """Return the first message of a kind in the captured stream."""
    messages = (decode(packet) for packet in captured_packets())
    return next(message for message in messages if type(message) is kind)


def call(call_id: bytes = b"call-1", **changes: Any) -> DialogCreated:
    """Return a confirmed call that is up at `CAPTURED_AT`."""
    made: DialogCreated = replace(captured_message(DialogCreated), call_id=call_id, **changes)
    return made


def update(call_id: bytes = b"call-1", **changes: Any) -> DialogUpdated:
    """Return the update of `call` that follows the ACK."""
    made = call(call_id, **({"state": CallState.CONFIRMED} | changes))
    return DialogUpdated(*(getattr(made, name) for name in made.shown()))


def contact(uri: bytes = b"sip:a@192.0.2.1", **changes: Any) -> ContactInserted:
    """Return a contact of ``user1`` that is registered at `CAPTURED_AT`."""
    made: ContactInserted = replace(captured_message(ContactInserted), contact=uri, **changes)
    return made


class Observing(NamedTuple):
    """Node 2 and its observers."""

    instance: Clusterer
    dialogs: Dialogs
    usrloc: Usrloc
    port: int


@contextmanager
def observing(settings: Settings, **options: Any) -> Iterator[Observing]:
    """Serve as node 2 at the time of the capture; node 1 is at 127.0.0.1."""
    port = free_port()
    load(settings, [node(1, free_port()), node(2, port)])
    instance = Clusterer(2, settings=settings)
    dialogs = Dialogs(instance, 1, unix_clock=lambda: CAPTURED_AT, **options)
    usrloc = Usrloc(instance, 1, unix_clock=lambda: CAPTURED_AT)
    thread = threading.Thread(target=instance.serve, name="serve 2")
    with instance, dialogs, usrloc:
        thread.start()
        try:
            assert instance.listener.ready.wait(EVENTUALLY_S)
            yield Observing(instance, dialogs, usrloc, port)
        finally:
            instance.stop()
            thread.join(EVENTUALLY_S)
    assert not thread.is_alive()
