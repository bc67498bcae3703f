"""Messages of the modules: captured, generated and hostile."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import FrameTooLarge, InvalidArgument, WireError
from clusterer.payloads import (
    MESSAGES,
    CallState,
    ContactDeleted,
    ContactInserted,
    DialogCreated,
    DialogDeleted,
    DialogUpdated,
    Message,
    PipeCounters,
    PipeRecord,
    ProfileCount,
    ProfileCounts,
    RecordDeleted,
    RecordInserted,
    decode,
)
from clusterer.payloads.message import FlatMessage, as_bytes
from clusterer.payloads.ratelimit import _read_slowly, read_records
from clusterer.wire import FrameDecoder, Packet, PacketBuilder
from tests.support.vectors import Captured, captured_frames, captured_stream

FLAT = [cls for cls in MESSAGES.values() if issubclass(cls, FlatMessage)]


def packet_in(frame: bytes) -> Packet:
    (packet,) = FrameDecoder().feed(frame)
    return packet


def captured_packet(module: str, kind: int) -> Packet:
    return next(
        packet_in(c.frame) for c in captured_frames() if (c.module, c.type) == (module, kind)
    )


def packet_of(message: type[Message], *values: int | bytes) -> Packet:
    builder = PacketBuilder(message.MODULE, message.TYPE, 2)
    for value in values:
        _ = builder.push_int(value) if isinstance(value, int) else builder.push_str(value)
    return builder.build()


def fault_of(packet: Packet) -> str | None:
    """Return the error of `decode` for ``packet``, None without an error."""
    try:
        decode(packet)
    except WireError as error:
        return str(error)
    return None


def assert_names(fault: str, message: type[Message]) -> None:
    assert fault.startswith(f"{message.NAME}: ")
    assert "field '" in fault or fault.endswith("bytes after the last field")


# -- captured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("captured", captured_frames(), ids=lambda c: f"{c.module}-{c.type}")
def test_captured_frame_encodes_to_same_bytes(captured: Captured) -> None:
    packet = packet_in(captured.frame)
    message = decode(packet)
    assert message is not None
    assert packet.machine_id is not None
    assert message.encode(packet.machine_id).encode() == captured.frame


def test_captured_stream_all_packets_known() -> None:
    stream, count = captured_stream()
    messages = [decode(packet) for packet in FrameDecoder().feed(stream)]
    assert len(messages) == count
    assert None not in messages
    assert {type(message) for message in messages} == set(MESSAGES.values())


def test_decode_captured_call_fields() -> None:
    call = decode(captured_packet("dialog", 1))
    assert isinstance(call, DialogCreated)
    assert call.call_id == b"2-19489@127.0.0.3"
    assert call.text("to_uri") == "sip:service@127.0.0.1:5060"
    assert call.state == CallState.CONFIRMED_NO_ACK
    assert call.expires - call.start == 12 * 3600
    assert [str(socket) for socket in call.parsed_sockets()] == ["udp:127.0.0.1:5060"] * 2
    assert call.parsed_profiles() == ((b"inbound", b"", b"b"), (b"caller", b"sipp", b"b"))
    assert call.parsed_variables() == ()
    assert (call.caller_cseq, call.callee_cseq) == (b"0", b"1")
    assert call.callee_contact == b"sip:127.0.0.9:7060;transport=UDP"


def test_decode_captured_contact_fields() -> None:
    contact = decode(captured_packet("ul", 3))
    assert isinstance(contact, ContactInserted)
    assert (contact.text("domain"), contact.text("aor")) == ("location", "user1")
    assert contact.contact == b"sip:user1@127.0.0.3:6060"
    assert contact.expires - contact.last_modified == 600
    assert (contact.q, contact.q_value) == (-1, None)
    assert replace(contact, q=700).q_value == 0.7
    assert str(contact.parsed_socket()) == "udp:127.0.0.1:5060"
    assert (contact.cseq, contact.methods) == (1, -1)


def test_decode_profile_counts_with_and_without_values() -> None:
    counts = decode(packet_in(captured_frames()[2].frame))
    assert counts == ProfileCounts(
        (ProfileCount(b"inbound", None, 0), ProfileCount(b"caller", b"sipp", 0))
    )


# -- round trips -----------------------------------------------------------------------------------

INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
BYTES = st.binary(max_size=60)
KEYS = st.binary(min_size=1, max_size=60)
COUNTS = st.integers(0, 2**31 - 1)


def flat(cls: type[FlatMessage]) -> st.SearchStrategy[FlatMessage]:
    kinds: dict[str, st.SearchStrategy[Any]] = {"bytes": BYTES, "int": INTS}
    chosen = {field.name: kinds[str(field.type)] for field in fields(cls)}  # type: ignore[arg-type]
    for name in {"last_modified", "expires"} & set(chosen) if cls.MODULE == "ul" else ():
        chosen[name] = LONGS
    chosen["call_id" if cls.MODULE == "dialog" else "aor"] = KEYS
    return st.builds(cls, **chosen)


MESSAGE = st.one_of(
    *(flat(cls) for cls in FLAT),
    st.builds(
        ProfileCounts,
        st.lists(st.builds(ProfileCount, BYTES, st.none() | BYTES, COUNTS)).map(tuple),
    ),
    st.builds(
        PipeCounters,
        st.lists(st.builds(PipeRecord, KEYS, st.integers(0, 5), INTS, COUNTS)).map(tuple),
    ),
)


@given(MESSAGE, INTS)
def test_encode_any_message_decodes_equal(message: Message, machine_id: int) -> None:
    packet = packet_in(message.encode(machine_id).encode())
    assert packet.machine_id == machine_id
    assert decode(packet) == message
    json.dumps(message.shown(), ensure_ascii=False).encode()


@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=200))
def test_decode_hostile_payload_gives_message_or_wire_error(
    kind: tuple[str, int], payload: bytes
) -> None:
    packet = Packet(*kind, 2, payload)
    fault = fault_of(packet)
    if fault is not None:
        assert_names(fault, MESSAGES[kind])
        return
    message = decode(packet)
    assert message is not None
    with suppress(InvalidArgument):  # an empty key, see test_wire_keys.py
        assert message.encode(2).payload in {payload, payload + bytes(4)}


@given(MESSAGE, st.data())
def test_decode_damaged_message_gives_message_or_wire_error(
    message: Message, data: st.DataObject
) -> None:
    packet = message.encode(2)
    payload = bytearray(packet.payload)
    if payload:
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
        del payload[data.draw(st.integers(0, len(payload))) :]
    fault = fault_of(packet._replace(payload=bytes(payload)))
    if fault is not None:
        assert_names(fault, type(message))


def test_decode_largest_payload_of_smallest_items() -> None:
    pipes = PipeCounters((PipeRecord(b"n", 0, 0, 0),) * 3_850)
    assert decode(pipes.encode(1)) == pipes
    counts = ProfileCounts((ProfileCount(b"", None, 0),) * 5_000)
    assert decode(counts.encode(1)) == counts


# -- unknown messages ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        Packet("dialog", 9, 1),
        Packet("tm", 1, 1),
        Packet("dialog", 4, 1, b"", 2),
        Packet("ratelimit", -1, 1),
        Packet("\udcff", 0, 1),
    ],
)
def test_decode_unknown_module_type_or_version_is_none(packet: Packet) -> None:
    assert decode(packet) is None


# -- invalid payloads ------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", FLAT, ids=lambda cls: cls.NAME)
def test_decode_cut_off_names_message_and_field(cls: type[FlatMessage]) -> None:
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    values = [b"text" if f.type == "bytes" else 0 for f in fields(cls)]  # type: ignore[arg-type]
    whole = cls(*values).encode(1).payload
    ends = []
    for end in range(0, len(whole) + 1, 4):
        fault = fault_of(Packet(cls.MODULE, cls.TYPE, 1, whole[:end])) or ""
        assert fault.startswith(f"{cls.NAME}: ") or not fault
        ends += [n for n in names if f"'{n.replace('_', ' ')}'" in fault]
    assert set(ends) == set(names)


@pytest.mark.parametrize("cls", FLAT, ids=lambda cls: cls.NAME)
def test_decode_bytes_after_last_field_raises(cls: type[FlatMessage]) -> None:
    values = [b"x" if f.type == "bytes" else 0 for f in fields(cls)]  # type: ignore[arg-type]
    whole = cls(*values).encode(1).payload
    with pytest.raises(WireError, match=f"{cls.NAME}: 4 bytes after the last field"):
        decode(Packet(cls.MODULE, cls.TYPE, 1, whole + bytes(4)))


@pytest.mark.parametrize("cls", [DialogDeleted, RecordInserted, RecordDeleted])
def test_decode_missing_last_string_is_empty(cls: type[FlatMessage]) -> None:
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    packet = packet_of(cls, *[b"x"] * (len(names) - 1))
    expected = [*[b"x"] * (len(names) - 1), b""]
    assert decode(packet) == cls(*expected)


WHOLE_CONTACT = [getattr(decode(captured_packet("ul", 3)), f.name) for f in fields(ContactInserted)]


def contact_with(name: str, raw: bytes) -> Packet:
    builder = PacketBuilder("ul", 3, 1)
    packed = {"expires": "<q", "q": "<i", "last_modified": "<q"}
    for field, value in zip(fields(ContactInserted), WHOLE_CONTACT, strict=True):
        if field.name == name:
            builder.push_str(raw)
        elif field.name in packed:
            builder.push_str(struct.pack(packed[field.name], value))
        else:
            _ = builder.push_int(value) if field.type == "int" else builder.push_str(value)
    return builder.build()


@pytest.mark.parametrize(
    ("name", "raw", "fault"),
    [
        ("expires", b"1234", "field 'expires': 4 bytes, a packed number has 8"),
        ("expires", b"", "field 'expires': 0 bytes, a packed number has 8"),
        ("q", b"12345", "field 'q': 5 bytes, a packed number has 4"),
        ("last_modified", b"1", "field 'last modified': 1 bytes"),
    ],
)
def test_decode_packed_number_of_other_size_raises(name: str, raw: bytes, fault: str) -> None:
    with pytest.raises(WireError, match=f"ul contact inserted: {fault}"):
        decode(contact_with(name, raw))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ((b"p",), "profile b'p': ends before field 'has value'"),
        ((b"p", 2, 5), "field 'has value' must be 0 or 1, not 2"),
        ((b"p", 1), "ends before field 'value'"),
        ((b"p", 1, b"v"), "ends before field 'count'"),
        ((b"p", 0), "ends before field 'count'"),
        ((b"p", 0, 5, b"q", 0), "profile b'q': ends before field 'count'"),
        ((b"p", 0, -1), "field 'count' must be 0 or more, not -1"),
        ((-7,), "field 'profile': string cut off: length -7"),
        ((b"p", 1, -7), "profile b'p': field 'value': string cut off: length -7"),
    ],
)
def test_decode_incomplete_profile_counts_raises(
    values: tuple[int | bytes, ...], fault: str
) -> None:
    with pytest.raises(WireError, match=f"dialog profile counts: .*{fault}"):
        decode(packet_of(ProfileCounts, *values))


@given(st.lists(st.builds(PipeRecord, KEYS, st.integers(0, 5), INTS, COUNTS)))
def test_read_records_fast_and_slow_agree(pipes: list[PipeRecord]) -> None:
    packet = PipeCounters(tuple(pipes)).encode(1)
    assert _read_slowly(packet) == read_records(packet) == pipes


@given(st.binary(max_size=60))
def test_read_records_hostile_fast_and_slow_agree(payload: bytes) -> None:
    packet = Packet("ratelimit", 0, 1, payload)
    results: list[object] = []
    for read in (read_records, _read_slowly):
        try:
            results.append(read(packet))
        except WireError as error:
            results.append(str(error))
    assert results[0] == results[1]


# -- records ---------------------------------------------------------------------------------------


def test_messages_are_frozen_and_hashable() -> None:
    deleted = DialogDeleted(b"a", b"b", b"c")
    with pytest.raises(FrozenInstanceError):
        deleted.call_id = b"x"  # type: ignore[misc]
    assert len({deleted, DialogDeleted(b"a", b"b", b"c")}) == 1


def test_text_not_utf8_keeps_bytes() -> None:
    contact = replace(decode(captured_packet("ul", 5)), contact=b"sip:\xff\xe9")  # type: ignore[type-var]
    assert isinstance(contact, ContactDeleted)
    assert as_bytes(contact.text("contact")) == as_bytes(contact.contact) == b"sip:\xff\xe9"
    assert contact.shown()["contact"] == "sip:\\xff\\xe9"
    counts = ProfileCounts((ProfileCount(b"\xff", b"\xfe", 1), ProfileCount(b"p", None, 2)))
    assert counts.shown() == {
        "counts": [
            {"profile": "\\xff", "value": "\\xfe", "calls": 1},
            {"profile": "p", "value": None, "calls": 2},
        ]
    }
    assert PipeCounters((PipeRecord(b"\xff", 1, 2, 3),)).shown() == {
        "pipes": [{"name": "\\xff", "algorithm": 1, "limit": 2, "counter": 3}]
    }


def test_text_of_list_items_returned() -> None:
    pipe, count = PipeRecord(b"z\xc3\xbc", 1, 5, 7), ProfileCount(b"p\xff", b"caller", 1)
    assert pipe.text("name") == "zü"
    assert (count.text("profile"), count.text("value")) == ("p\udcff", "caller")


def test_text_of_number_raises_with_name() -> None:
    contact = decode(captured_packet("ul", 5))
    assert isinstance(contact, ContactDeleted)
    for record, field, message in (
        (contact, "cseq", f"ul contact deleted: field cseq must be bytes, not {contact.cseq}"),
        (
            PipeRecord(b"a", 1, 5, 7),
            "limit",
            "ratelimit pipe counters: field limit must be bytes, not 5",
        ),
        (ProfileCount(b"p", None, 1), "value", "dialog profile counts: field value must be bytes"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            record.text(field)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"cseq": 2**31}, "ul contact inserted: field 'cseq': integer field must be"),
        ({"expires": 2**63}, "field 'expires': must be a signed number of 64 bits, not 9"),
        ({"expires": b"soon"}, "field 'expires': must be a signed number of 64 bits, not b'soon'"),
        ({"q": True}, "field 'q': must be a signed number of 32 bits, not True"),
        ({"aor": 5}, "field 'aor'"),
    ],
)
def test_encode_invalid_value_names_message_and_field(changes: dict[str, Any], fault: str) -> None:
    contact = replace(ContactInserted(*WHOLE_CONTACT), **changes)
    with pytest.raises(InvalidArgument, match=fault):
        contact.encode(1)


def test_encode_too_long_message_raises_frame_too_large() -> None:
    contact = replace(ContactInserted(*WHOLE_CONTACT), user_agent=b"x" * 65_500)
    with pytest.raises(FrameTooLarge, match="ul contact inserted: field"):
        contact.encode(1)


@pytest.mark.parametrize(
    ("changes", "call", "fault"),
    [
        (
            {"caller_socket": b"udp"},
            "parsed_sockets",
            "field 'caller socket': b'udp' must be a socket",
        ),
        ({"callee_socket": b"x:y:z"}, "parsed_sockets", "field 'callee socket'"),
        ({"profiles": b"a"}, "parsed_profiles", "field 'profiles': b'a' at 0"),
        ({"variables": b"a#b"}, "parsed_variables", "field 'variables': b'a#b' at 0"),
    ],
)
def test_parsed_invalid_part_raises_on_access_only(
    changes: dict[str, Any], call: str, fault: str
) -> None:
    whole = decode(captured_packet("dialog", 2))
    assert isinstance(whole, DialogUpdated)
    message = decode(replace(whole, **changes).encode(1))
    with pytest.raises(WireError, match=f"dialog updated: {fault}"):
        getattr(message, call)()


def test_message_base_methods_not_implemented() -> None:
    for act in (
        lambda: Message.decode(Packet("x", 0, 1)),
        lambda: Message().encode(1),
        Message().shown,
    ):
        with pytest.raises(NotImplementedError):
            act()
