"""Messages of OpenSIPS 3.x: hostile bytes, and values that cannot be sent."""

from __future__ import annotations

import struct
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import FrameTooLarge, InvalidArgument, WireError
from clusterer.payloads import decode
from clusterer.payloads.opensips3 import (
    MESSAGES,
    BridgedPipeCounters,
    ContactDeleted,
    ContactInserted,
    ContactUpdated,
    DialogCreated,
    DialogDeleted,
    DialogValue,
    DispatcherState,
    Match,
    Message3,
    MiCommand,
    PipeCounters,
    PipeRecord,
    RecordInserted,
    RelayedPipeCounters,
    Sync,
    SyncEnd,
)
from clusterer.payloads.opensips3.chunks import MARK
from clusterer.payloads.opensips3.message import FlatMessage3
from clusterer.wire import Packet, PacketBuilder3, Trailer
from tests.support.messages3 import FLAT, MESSAGE

TRAILER = Trailer(1, 0)
CONTACT = ContactInserted(
    domain=b"location",
    aor=b"alice",
    contact=b"sip:a@x",
    contact_id=5,
    call_id=b"call",
    user_agent=b"",
    path=b"",
    attributes=b"",
    received=b"",
    instance=b"",
    expires=0,
    q=-1,
    socket=b"",
    cseq=1,
    flags=0,
    branch_flags=b"",
    methods=-1,
    last_modified=9,
    kv_store=b"",
    match=Match(-1),
)


def fault_of(packet: Packet) -> str | None:
    """Return the error of `decode` for ``packet``, None without an error."""
    try:
        decode(packet)
    except WireError as error:
        return str(error)
    return None


def built(cls: type[Message3], *values: int | bytes, version: int | None = None) -> Packet:
    chosen = cls.VERSIONS[-1] if version is None else version
    builder = PacketBuilder3(cls.MODULE, cls.TYPE, 2, chosen)
    for value in values:
        _ = builder.push_int(value) if isinstance(value, int) else builder.push_str(value)
    return builder.build()


# -- hostile ---------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=200), st.data())
def test_decode_hostile_payload3_gives_message_or_wire_error(
    kind: tuple[str, int], payload: bytes, data: st.DataObject
) -> None:
    version = data.draw(st.sampled_from(MESSAGES[kind].VERSIONS))
    packet = Packet(*kind, 2, payload, version, TRAILER)
    fault = fault_of(packet)
    if fault is not None:
        assert fault.startswith(f"{MESSAGES[kind].NAME}: ")
        return
    message = decode(packet)
    assert isinstance(message, Message3)
    if not isinstance(message, BridgedPipeCounters):
        assert message.encode(2) == packet


@given(MESSAGE, st.data())
def test_decode_damaged_message3_gives_message_or_wire_error(
    message: Message3, data: st.DataObject
) -> None:
    packet = message.encode(2)
    payload = bytearray(packet.payload)
    if payload:
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
        del payload[data.draw(st.integers(0, len(payload))) :]
    fault = fault_of(packet._replace(payload=bytes(payload)))
    assert fault is None or fault.startswith(f"{message.NAME}: ")


@given(MESSAGE)
def test_decode_bytes_after_last_field3_raises(message: Message3) -> None:
    packet = message.encode(2)
    fault = fault_of(packet._replace(payload=packet.payload + b"\0"))
    assert fault is not None
    assert fault.startswith(f"{message.NAME}: ")


@pytest.mark.parametrize("cls", FLAT, ids=lambda cls: cls.NAME)
def test_decode_cut_off3_names_message_and_field(cls: type[FlatMessage3]) -> None:
    packet = _plain(cls)
    names = {f.name.replace("_", " ") for f in fields(cls)} - {"version"}
    named = set()
    for end in range(len(packet.payload)):
        fault = fault_of(packet._replace(payload=packet.payload[:end]))
        assert fault is not None
        assert fault.startswith(f"{cls.NAME}: ")
        named |= {name for name in names if f"field '{name}'" in fault}
    assert named == names


def _plain(cls: type[FlatMessage3]) -> Packet:
    values: dict[str, Any] = {
        "bytes": b"text",
        "int": 1,
        "int | None": 1,
        "bytes | None": b"kv",
        "bytes | int": b"flags",
        "bytes | int | None": 5,
        "tuple[bytes, ...]": (b"a", b"b"),
        "Match | None": Match(2, (b"p",)),
    }
    chosen = {f.name: values[str(f.type)] for f in fields(cls) if f.name != "version"}
    return cls(**chosen, version=cls.VERSIONS[-1]).encode(2)


@pytest.mark.parametrize(
    ("packet", "fault"),
    [
        (built(MiCommand, b"ps", 3, b"x"), "field 'parameters': a list of 3 strings, 3 bytes left"),
        (built(MiCommand, b"ps", -1), "field 'parameters': a list of -1 strings, 0 bytes left"),
        (built(MiCommand, b"ps", 2, b"abcd"), "field 'parameters': cut off"),
        (built(DialogValue, b"c", 1, b"n", 3), "field 'value': has the unknown type 3"),
        (built(DialogValue, b"c", 1, b"n", 1), "field 'value': cut off"),
        (built(DialogValue, b"c", 1, b"n"), "field 'value': cut off"),
        (built(ContactDeleted, *[b""] * 4, 1, 3), "field 'match': has the unknown mode 3"),
        (built(ContactDeleted, *[b""] * 4, 1, 2), "field 'match': cut off"),
        (built(ContactDeleted, *[b""] * 4, 1), "ends before field 'match'"),
        (built(RecordInserted, b"", b"", 1, 2), "ends before field 'kv store'"),
        (built(DialogDeleted, b"", b"", b""), "ends before field 'dialog id'"),
        (built(PipeCounters, b"p", 1, 6, 1, 1), "field 'algorithm' is 6, which is unknown"),
        (built(PipeCounters, b"p/b", 6, 1, 1), "field 'algorithm' is 6, which is unknown"),
        (built(PipeCounters, -1), "pipe counters: field 'name': string cut off: length 65535"),
        (built(SyncEnd, b"presence", 1, b"x"), "sync end: 3 bytes after the last field"),
        (built(RelayedPipeCounters), "ends before field 'source cluster'"),
        (built(RelayedPipeCounters, 1, b"p", 1), "pipe b'p': ends before field 'algorithm'"),
        (built(Sync, b"presence"), "ends before field 'data version'"),
        (built(Sync, b"presence", 1, 5), "chunk 1: ends before field 'mark'"),
        (built(Sync, b"presence", 1, 5, 4), f"chunk 1: field 'mark' must be {MARK}"),
        (built(Sync, b"presence", 1, 5, MARK, 0), "chunk 1: 5 bytes at field offset"),
        (built(Sync, b"presence", 1, -1, MARK, 0), "chunk 1: -1 bytes at field offset"),
        (
            built(Sync, b"usrloc-contact-repl", 5, 0, MARK),
            "chunk 1: ends before field 'kind'",
        ),
        (built(Sync, b"cachedb-local-repl", 1, 2, MARK, b""), "cache set: ends before field 'key'"),
        (
            built(Sync, b"usrloc-contact-repl", 5, 4, MARK, 2),
            "chunk 1: field 'kind' is 2, which is unknown",
        ),
        (
            built(Sync, b"dialog-dlg-repl", 4, 0, MARK),
            "chunk 1: dialog created: ends before field 'call id'",
        ),
    ],
)
def test_decode_invalid_field3_names_it(packet: Packet, fault: str) -> None:
    assert fault in (fault_of(packet) or "")


def test_decode_packed_number3_of_other_size_raises() -> None:
    payload = CONTACT.encode(2).payload
    number = struct.pack("<HqH", 8, 5, 4)
    assert number in payload
    short = payload.replace(number, struct.pack("<HiH", 4, 5, 4))
    fault = fault_of(CONTACT.encode(2)._replace(payload=short))
    assert fault == ("ul contact inserted: field 'contact id': 4 bytes, a packed number has 8")


def test_decode_chunk_of_unknown_version_is_bytes() -> None:
    packet = Sync(b"dialog-dlg-repl", 9, (b"whatever",)).encode(2)
    sync = decode(packet)
    assert isinstance(sync, Sync)
    assert sync.chunks == (b"whatever",)
    assert sync.shown()["chunks"] == [b"whatever".hex()]


# -- values that cannot be sent --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (replace(CONTACT, version=6), r"packet version must be one of \(2, 3, 4, 5\), not 6"),
        (replace(CONTACT, version=4, aor=5), "field 'aor'"),  # type: ignore[arg-type]
        (replace(CONTACT, version=3), "field 'branch flags'"),
        (replace(CONTACT, version=2, branch_flags=0), "field 'match': must be None in version 2"),
        (replace(CONTACT, match=None), "field 'match': must be a Match"),
        (replace(CONTACT, match=Match(1, (b"p",))), "field 'match': must be a Match"),
        (replace(CONTACT, expires=2**63), "field 'expires': must be a signed number of 64 bits"),
        (replace(CONTACT, cseq=2**31), "field 'cseq': integer field must be"),
        (SyncEnd(b"presence", None), "field 'chunk count'"),
        (SyncEnd(b"presence", 1, version=2), "field 'chunk count': must be None in version 2"),
        (MiCommand(b"ps", b"x"), "field 'parameters': must be a tuple of bytes"),  # type: ignore[arg-type]
        (DialogValue(b"c", 1, b"n", 1.5), "field 'value': must be bytes, int or None"),  # type: ignore[arg-type]
        (
            PipeCounters((PipeRecord(b"a", 1, 2, 3), PipeRecord(b"b", 1, 2, 3, None))),
            "all pipes must have flags, or none of them",
        ),
        (RelayedPipeCounters(1, (PipeRecord(b"b", 1, 2, 3, None),)), "all pipes must have flags"),
        (BridgedPipeCounters(1), "only a bridge between clusters sends this message"),
        (DispatcherState(b"p", 1, b"sip:x", 0), "only a chunk of a Sync, not a packet"),
        (Sync(b"presence", 5, (CONTACT,)), "is no chunk of presence 5"),
        (Sync(b"usrloc-contact-repl", 4, (CONTACT,)), "is no chunk of usrloc-contact-repl 4"),
        (Sync(b"usrloc-contact-repl", 9, (replace(CONTACT, version=9),)), "is no chunk of"),
    ],
)
def test_encode_invalid_value3_names_message_and_field(message: Message3, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{message.NAME}: .*{fault}|{fault}"):
        message.encode(1)


def test_encode_too_long_message3_raises_frame_too_large() -> None:
    with pytest.raises(FrameTooLarge, match="ul contact inserted: field 'user agent'"):
        replace(CONTACT, user_agent=b"x" * 65_500).encode(1)


def test_contact3_orders_contact_id_by_type() -> None:
    updated = ContactUpdated(*[getattr(CONTACT, f.name) for f in fields(CONTACT)][1:])
    number = struct.pack("<Hq", 8, 5)
    inserted_at = CONTACT.encode(1).payload.index(number)
    assert inserted_at < updated.encode(1).payload.index(number)
    assert decode(updated.encode(1)) == updated
    assert replace(CONTACT, q=700).q_value == 0.7


def test_push_without_layout_not_implemented() -> None:
    with pytest.raises(NotImplementedError):
        Message3.push(CONTACT, PacketBuilder3("presence", 1, 1))


def test_messages3_are_frozen_and_hashable() -> None:
    deleted = DialogDeleted(b"a", b"b", b"c", 1)
    with pytest.raises(FrozenInstanceError):
        deleted.call_id = b"x"  # type: ignore[misc]
    assert len({deleted, DialogDeleted(b"a", b"b", b"c", 1)}) == 1


@pytest.mark.parametrize(
    ("field", "value", "call", "fault"),
    [
        ("caller_socket", b"udp", "parsed_sockets", "field 'caller socket': b'udp'"),
        ("variables", b"a", "parsed_variables", "field 'variables': b'a' at 0 must begin with"),
        ("profiles", b"a#2#1|", "parsed_profiles", "field 'profiles': value of profile b'a'"),
    ],
)
def test_dialog3_parsed_field_invalid_names_it(
    field: str, value: bytes, call: str, fault: str
) -> None:
    empty = [b"" if f.type == "bytes" else 0 for f in fields(DialogCreated)][1:-2]
    message = replace(DialogCreated(*empty), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(WireError, match=f"dialog created: {fault}"):
        getattr(message, call)()
