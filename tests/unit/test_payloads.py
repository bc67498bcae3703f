"""Messages of the modules: captured ones, any ones, and hostile ones."""

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
    """Return what `decode` says against ``packet``, None if it says nothing."""
    try:
        decode(packet)
    except WireError as error:
        return str(error)
    return None


def assert_names(fault: str, message: type[Message]) -> None:
    assert fault.startswith(f"{message.NAME}: ")
    assert "field '" in fault or fault.endswith("bytes behind its last field")


# -- captured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("captured", captured_frames(), ids=lambda c: f"{c.module}-{c.type}")
def test_captured_frame_decodes_and_encodes_to_the_same_bytes(captured: Captured) -> None:
    packet = packet_in(captured.frame)
    message = decode(packet)
    assert message is not None
    assert packet.machine_id is not None
    assert message.encode(packet.machine_id).encode() == captured.frame


def test_every_packet_of_the_captured_stream_is_known() -> None:
    stream, count = captured_stream()
    messages = [decode(packet) for packet in FrameDecoder().feed(stream)]
    assert len(messages) == count
    assert None not in messages
    assert {type(message) for message in messages} == set(MESSAGES.values())


def test_call_is_read_as_what_it_was() -> None:
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


def test_contact_is_read_as_what_it_was() -> None:
    contact = decode(captured_packet("ul", 3))
    assert isinstance(contact, ContactInserted)
    assert (contact.text("domain"), contact.text("aor")) == ("location", "user1")
    assert contact.contact == b"sip:user1@127.0.0.3:6060"
    assert contact.expires - contact.last_modified == 600
    assert (contact.q, contact.q_value) == (-1, None)
    assert replace(contact, q=700).q_value == 0.7
    assert str(contact.parsed_socket()) == "udp:127.0.0.1:5060"
    assert (contact.cseq, contact.methods) == (1, -1)


def test_profile_counts_are_read_with_and_without_values() -> None:
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
def test_any_message_comes_back_over_the_wire(message: Message, machine_id: int) -> None:
    packet = packet_in(message.encode(machine_id).encode())
    assert packet.machine_id == machine_id
    assert decode(packet) == message
    json.dumps(message.shown(), ensure_ascii=False).encode()


@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=200))
def test_hostile_payload_gives_a_message_or_a_wire_error(
    kind: tuple[str, int], payload: bytes
) -> None:
    packet = Packet(*kind, 2, payload)
    fault = fault_of(packet)
    if fault is not None:
        assert_names(fault, MESSAGES[kind])
        return
    message = decode(packet)
    assert message is not None
    with suppress(InvalidArgument):  # its key is empty, see test_wire_keys.py
        assert message.encode(2).payload in {payload, payload + bytes(4)}


@given(MESSAGE, st.data())
def test_cut_or_changed_message_gives_a_message_or_a_wire_error(
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


def test_largest_payload_of_smallest_parts_is_read_whole() -> None:
    pipes = PipeCounters((PipeRecord(b"n", 0, 0, 0),) * 3_850)
    assert decode(pipes.encode(1)) == pipes
    counts = ProfileCounts((ProfileCount(b"", None, 0),) * 5_000)
    assert decode(counts.encode(1)) == counts


# -- what is not known -----------------------------------------------------------------------------


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
def test_unknown_module_type_or_version_is_no_message(packet: Packet) -> None:
    assert decode(packet) is None


# -- payloads that are not right -------------------------------------------------------------------


@pytest.mark.parametrize("cls", FLAT, ids=lambda cls: cls.NAME)
def test_message_that_ends_early_names_itself_and_the_field(cls: type[FlatMessage]) -> None:
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
def test_message_with_something_left_over_is_refused(cls: type[FlatMessage]) -> None:
    values = [b"x" if f.type == "bytes" else 0 for f in fields(cls)]  # type: ignore[arg-type]
    whole = cls(*values).encode(1).payload
    with pytest.raises(WireError, match=f"{cls.NAME}: 4 bytes behind its last field"):
        decode(Packet(cls.MODULE, cls.TYPE, 1, whole + bytes(4)))


@pytest.mark.parametrize("cls", [DialogDeleted, RecordInserted, RecordDeleted])
def test_last_string_that_is_missing_reads_as_empty(cls: type[FlatMessage]) -> None:
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
def test_packed_number_of_another_size_is_refused(name: str, raw: bytes, fault: str) -> None:
    with pytest.raises(WireError, match=f"ul contact inserted: {fault}"):
        decode(contact_with(name, raw))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ((b"p",), "profile b'p': ends before its field 'has value'"),
        ((b"p", 2, 5), "field 'has value' must be 0 or 1, not 2"),
        ((b"p", 1), "ends before its field 'value'"),
        ((b"p", 1, b"v"), "ends before its field 'count'"),
        ((b"p", 0), "ends before its field 'count'"),
        ((b"p", 0, 5, b"q", 0), "profile b'q': ends before its field 'count'"),
        ((b"p", 0, -1), "field 'count' is -1"),
        ((-7,), "field 'profile': string cut off: length -7"),
        ((b"p", 1, -7), "profile b'p': field 'value': string cut off: length -7"),
    ],
)
def test_profile_counts_that_are_not_whole_are_refused(
    values: tuple[int | bytes, ...], fault: str
) -> None:
    with pytest.raises(WireError, match=f"dialog profile counts: .*{fault}"):
        decode(packet_of(ProfileCounts, *values))


@given(st.lists(st.builds(PipeRecord, KEYS, st.integers(0, 5), INTS, COUNTS)))
def test_pipes_are_read_alike_fast_and_slowly(pipes: list[PipeRecord]) -> None:
    packet = PipeCounters(tuple(pipes)).encode(1)
    assert _read_slowly(packet) == read_records(packet) == pipes


@given(st.binary(max_size=60))
def test_hostile_pipes_are_judged_alike_fast_and_slowly(payload: bytes) -> None:
    packet = Packet("ratelimit", 0, 1, payload)
    results: list[object] = []
    for read in (read_records, _read_slowly):
        try:
            results.append(read(packet))
        except WireError as error:
            results.append(str(error))
    assert results[0] == results[1]


# -- records ---------------------------------------------------------------------------------------


def test_records_are_frozen_and_hashable() -> None:
    deleted = DialogDeleted(b"a", b"b", b"c")
    with pytest.raises(FrozenInstanceError):
        deleted.call_id = b"x"  # type: ignore[misc]
    assert len({deleted, DialogDeleted(b"a", b"b", b"c")}) == 1


def test_text_that_is_not_utf8_never_fails_and_keeps_its_bytes() -> None:
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


def test_records_in_lists_offer_text_as_well() -> None:
    pipe, count = PipeRecord(b"z\xc3\xbc", 1, 5, 7), ProfileCount(b"p\xff", b"caller", 1)
    assert pipe.text("name") == "zü"
    assert (count.text("profile"), count.text("value")) == ("p\udcff", "caller")


def test_what_is_no_text_is_refused_by_name() -> None:
    contact = decode(captured_packet("ul", 5))
    assert isinstance(contact, ContactDeleted)
    for record, field, message in (
        (contact, "cseq", f"ul contact deleted: field cseq is {contact.cseq}, no text"),
        (PipeRecord(b"a", 1, 5, 7), "limit", "ratelimit pipe counters: field limit is 5, no text"),
        (ProfileCount(b"p", None, 1), "value", "dialog profile counts: field value is None, no"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            record.text(field)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"cseq": 2**31}, "ul contact inserted: field 'cseq': integer field must be"),
        ({"expires": 2**63}, "field 'expires': 9223372036854775808 is no signed number of 64"),
        ({"expires": b"soon"}, "field 'expires': b'soon' is no signed number of 64 bits"),
        ({"q": True}, "field 'q': True is no signed number of 32 bits"),
        ({"aor": 5}, "field 'aor'"),
    ],
)
def test_value_that_cannot_be_sent_names_message_and_field(
    changes: dict[str, Any], fault: str
) -> None:
    contact = replace(ContactInserted(*WHOLE_CONTACT), **changes)
    with pytest.raises(InvalidArgument, match=fault):
        contact.encode(1)


def test_message_too_long_for_a_frame_keeps_its_kind_of_error() -> None:
    contact = replace(ContactInserted(*WHOLE_CONTACT), user_agent=b"x" * 65_500)
    with pytest.raises(FrameTooLarge, match="ul contact inserted: field"):
        contact.encode(1)


@pytest.mark.parametrize(
    ("changes", "call", "fault"),
    [
        ({"caller_socket": b"udp"}, "parsed_sockets", "field 'caller socket': b'udp' is no socket"),
        ({"callee_socket": b"x:y:z"}, "parsed_sockets", "field 'callee socket'"),
        ({"profiles": b"a"}, "parsed_profiles", "field 'profiles': b'a' at 0"),
        ({"variables": b"a#b"}, "parsed_variables", "field 'variables': b'a#b' at 0"),
    ],
)
def test_part_that_is_written_wrongly_fails_only_when_asked_for(
    changes: dict[str, Any], call: str, fault: str
) -> None:
    whole = decode(captured_packet("dialog", 2))
    assert isinstance(whole, DialogUpdated)
    message = decode(replace(whole, **changes).encode(1))
    with pytest.raises(WireError, match=f"dialog updated: {fault}"):
        getattr(message, call)()


def test_base_message_leaves_all_to_its_kinds() -> None:
    for act in (
        lambda: Message.decode(Packet("x", 0, 1)),
        lambda: Message().encode(1),
        Message().shown,
    ):
        with pytest.raises(NotImplementedError):
            act()
