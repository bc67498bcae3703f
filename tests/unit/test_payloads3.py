"""Messages of OpenSIPS 3.x: captured and generated."""

from __future__ import annotations

import json
import struct
from dataclasses import fields

import pytest
from hypothesis import given

from clusterer.payloads import CallState, Profile, decode
from clusterer.payloads.opensips3 import (
    MESSAGES,
    BalancedStatus,
    BridgedPipeCounters,
    CacheRemoved,
    CacheSet,
    CarrierStatus,
    ContactId,
    ContactUpdated,
    DialogCreated,
    DialogUpdated,
    DialogValue,
    DispatcherStatus,
    GatewayStatus,
    Message3,
    PipeCounters,
    PipeRecord,
    RelayedPipeCounters,
    Sync,
    TaggedSocket,
)
from clusterer.wire import FrameDecoder3, Packet, Trailer
from tests.support.captured3 import frames_of_modules, packet_in
from tests.support.messages3 import INTS, MESSAGE, as_shown
from tests.support.vectors import Captured3

OF_MODULES = frames_of_modules()


def message_of(run: str, module: str, kind: int) -> Message3:
    message = next(
        decode(packet_in(c)) for c in OF_MODULES if (c.run, c.module, c.type) == (run, module, kind)
    )
    assert isinstance(message, Message3)
    return message


# -- captured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("captured", OF_MODULES, ids=lambda c: f"{c.run}-{c.module}-{c.type}")
def test_captured_frame3_shows_its_decoding(captured: Captured3) -> None:
    message = decode(packet_in(captured))
    assert message is not None
    assert message.shown() == as_shown(captured.module, captured.decoded)


@pytest.mark.parametrize("captured", OF_MODULES, ids=lambda c: f"{c.run}-{c.module}-{c.type}")
def test_captured_frame3_encodes_to_same_bytes(captured: Captured3) -> None:
    packet = packet_in(captured)
    message = decode(packet)
    assert isinstance(message, Message3)
    if isinstance(message, BridgedPipeCounters):
        relayed = RelayedPipeCounters(message.source_cluster, message.pipes)
        assert relayed.encode(22, 1).payload == packet.payload
        return
    assert packet.machine_id is not None
    assert packet.trailer is not None
    cluster_id = packet.trailer.cluster_id
    assert cluster_id is not None
    encoded = message.encode(packet.machine_id, cluster_id)
    assert encoded == packet._replace(trailer=Trailer(cluster_id, 0))
    (received,) = FrameDecoder3().feed(captured.frame)
    assert encoded._replace(trailer=packet.trailer, type=received.type).encode() == captured.frame


def test_captured_frames3_have_every_message_of_captured_modules() -> None:
    captured = {type(decode(packet_in(c))) for c in OF_MODULES}
    modules = {c.module for c in OF_MODULES}
    assert captured == {cls for (module, _), cls in MESSAGES.items() if module in modules}


def test_decode_captured_call3_fields() -> None:
    call = message_of("two-nodes-db", "dialog-dlg-repl", 2)
    assert isinstance(call, DialogUpdated)
    assert call.state == CallState.CONFIRMED
    assert call.text("to_uri") == "sip:dave@example.org"
    assert call.parsed_sockets() == (TaggedSocket("udp", "main"),) * 2
    assert call.parsed_profiles() == (
        Profile(b"inbound", b"", b"b"),
        Profile(b"caller", b"carol", b"b"),
    )
    assert dict(call.parsed_variables()) == {
        b"num": 17,
        b"seq": b"ACK",
        b"dlgX_shtag": b"vip",
        b"colour": b"blue#1|x",
    }


def test_decode_captured_call3_notation_without_types() -> None:
    call = message_of("3.2.19", "dialog-dlg-repl", 1)
    assert isinstance(call, DialogCreated)
    assert dict(call.parsed_variables())[b"colour"] == b"blue#1|x"
    assert (b"caller", b"alice", b"b") in call.parsed_profiles()


def test_decode_captured_contact3_fields() -> None:
    contact = message_of("two-nodes-db", "usrloc-contact-repl", 4)
    assert isinstance(contact, ContactUpdated)
    assert (contact.version, contact.aor) == (5, b"alice")
    assert contact.expires - contact.last_modified == 600
    assert contact.q_value is None
    assert contact.parsed_socket() == TaggedSocket("udp", "main")
    hash_, label, contact_label = contact.parsed_contact_id
    assert (hash_ << 46) + (label << 14) + contact_label == contact.contact_id
    assert ContactId.of((3 << 46) + (2 << 14) + 1) == (3, 2, 1)


def test_decode_captured_sync_has_messages() -> None:
    sync = message_of("3.4.18", "clusterer-extra", 11)
    assert isinstance(sync, Sync)
    assert [chunk.NAME for chunk in sync.chunks if isinstance(chunk, Message3)] == [
        "ul record inserted",
        "ul contact inserted",
    ] * 3


def test_decode_pipes_until_3_2_have_no_flags() -> None:
    counters = message_of("3.1.17", "ratelimit-pipe-repl", 0)
    assert isinstance(counters, PipeCounters)
    assert [(pipe.text("name"), pipe.flags) for pipe in counters.pipes] == [
        ("opt/b", None),
        ("sbt/b", None),
    ]


@pytest.mark.parametrize("cls", MESSAGES.values(), ids=lambda cls: cls.NAME)
def test_default_version3_is_that_of_3_6(cls: type[Message3]) -> None:
    sent = {c.version for c in OF_MODULES if c.run == "two-nodes-db" and c.module == cls.MODULE}
    (version,) = [f.default for f in fields(cls) if f.name == "version"]
    assert version in cls.VERSIONS
    assert not sent or version in sent


def test_chunks_of_drouting_begin_with_their_kind() -> None:
    """From the source alone: drouting begins with 1 for a gateway, 0 for a carrier."""
    gateway, carrier = GatewayStatus(b"p", b"g", 5), CarrierStatus(b"p", b"c", 6)
    payload = Sync(b"drouting-status-repl", 1, (gateway, carrier)).encode(1).payload
    assert payload.endswith(
        struct.pack("<iii", 14, 101010101, 1)
        + b"\1\0p\1\0g\5\0\0\0"
        + struct.pack("<iii", 14, 101010101, 0)
        + b"\1\0p\1\0c\6\0\0\0"
    )


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (CacheSet(b"c", b"k", b"v", 9), b"\1\0c\1\0k\1\0v\t\0\0\0"),
        (CacheRemoved(b"c", b"k"), b"\1\0c\1\0k"),
        (
            DispatcherStatus(b"p", 2, b"a", 1, 3),
            b"\1\0p\2\0\0\0\1\0a\1\0\0\0\3\0\0\0",
        ),
        (GatewayStatus(b"p", b"g", 5), b"\1\0p\1\0g\5\0\0\0"),
        (CarrierStatus(b"p", b"c", 5), b"\1\0p\1\0c\5\0\0\0"),
        (BalancedStatus(2, b"u", 5), b"\2\0\0\0\1\0u\5\0\0\0"),
    ],
    ids=lambda value: value.NAME if isinstance(value, Message3) else "",
)
def test_encode_message3_known_from_source(message: Message3, payload: bytes) -> None:
    assert message.encode(2).payload == payload
    assert decode(message.encode(2)) == message


@pytest.mark.parametrize("value", [None, 7, -1, b"vip", b""])
def test_dialog_value_of_each_type(value: bytes | int | None) -> None:
    message = DialogValue(b"call", 1, b"name", value)
    assert decode(message.encode(1)) == message


# -- round trips -----------------------------------------------------------------------------------


@given(MESSAGE, INTS, INTS)
def test_encode_any_message3_decodes_equal(
    message: Message3, machine_id: int, cluster_id: int
) -> None:
    (packet,) = FrameDecoder3().feed(message.encode(machine_id, cluster_id).encode())
    assert packet.machine_id == machine_id
    assert packet.trailer == Trailer(cluster_id, 0)
    assert decode(packet) == message
    json.dumps(message.shown(), ensure_ascii=False).encode()


@pytest.mark.parametrize("name", [b"opt", b"opt/b", b""])
@pytest.mark.parametrize("flags", [None, 1])
def test_decode_pipes_of_either_layout(name: bytes, flags: int | None) -> None:
    pipes = tuple(PipeRecord(name, kind, 20, 7, flags) for kind in range(1, 6))
    assert decode(PipeCounters(pipes).encode(1)) == PipeCounters(pipes)


def test_messages3_of_same_name_as_2_2_differ_by_dialect() -> None:
    packet = DialogCreated.decode(
        next(packet_in(c) for c in OF_MODULES if "dlg" in c.module)
    ).encode(1)
    assert isinstance(decode(packet), DialogCreated)
    assert decode(packet._replace(trailer=None)) is None


@pytest.mark.parametrize(
    "packet",
    [
        Packet("dialog", 1, 1, b"", 1, Trailer(1, 2)),
        Packet("clusterer-internal", 0, 1, b"", 1, Trailer(1)),
        Packet("usrloc-contact-repl", 1, 1, b"", 1, Trailer(1, 2)),
        Packet("usrloc-contact-repl", 1, 1, b"", 6, Trailer(1, 2)),
        Packet("dialog-dlg-repl", 9, 1, b"", 4, Trailer(1, 2)),
        Packet("\udcff", 0, 1, b"", 1, Trailer(1, 2)),
    ],
)
def test_decode_unknown_capability_type_or_version_is_none(packet: Packet) -> None:
    assert decode(packet) is None
