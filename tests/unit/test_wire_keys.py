"""Packets with an empty key, which crash OpenSIPS 2.2.8: the builder rejects them."""

from __future__ import annotations

from dataclasses import fields

import pytest

from clusterer.errors import InvalidArgument
from clusterer.payloads import (
    MESSAGES,
    ContactDeleted,
    ContactInserted,
    ContactUpdated,
    DialogCreated,
    DialogDeleted,
    DialogUpdated,
    PipeCounters,
    PipeRecord,
    ProfileCount,
    ProfileCounts,
    RecordDeleted,
    RecordInserted,
    decode,
)
from clusterer.payloads.message import FlatMessage
from clusterer.wire import FrameDecoder, Packet, PacketBuilder
from clusterer.wire.required_keys import KEYS
from tests.support.vectors import Captured, captured_frames, captured_stream

KEY_OF: dict[type[FlatMessage], str] = {
    DialogCreated: "call_id",
    DialogUpdated: "call_id",
    RecordInserted: "aor",
    RecordDeleted: "aor",
    ContactInserted: "aor",
}
HARMLESS: tuple[type[FlatMessage], ...] = (DialogDeleted, ContactUpdated, ContactDeleted)
NAMED = PipeRecord(b"calls", 1, 100, 0)
UNNAMED = PipeRecord(b"", 1, 100, 5)


def message_of(cls: type[FlatMessage], **values: bytes) -> FlatMessage:
    """Return a message whose strings are "x" and whose numbers are 0, apart from ``values``."""
    kinds = {field.name: str(field.type) for field in fields(cls)}  # type: ignore[arg-type]
    filled = {name: b"x" if kind == "bytes" else 0 for name, kind in kinds.items()}
    return cls(**filled | values)


def raw_of(message: FlatMessage, key: str) -> Packet:
    """Return the packet of ``message`` with an empty ``key``, as a peer might send it."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}  # type: ignore[arg-type]
    packet = type(message)(**values | {key: b"KEY"}).encode(2)
    payload = packet.payload.replace(b"\3\0\0\0KEY", bytes(4))
    return packet._replace(payload=payload)


@pytest.mark.parametrize(("cls", "key"), KEY_OF.items(), ids=lambda value: str(value)[-20:])
def test_encode_empty_key_raises(cls: type[FlatMessage], key: str) -> None:
    label = key.replace("_", " ")
    fault = rf"{cls.MODULE} packet of type {cls.TYPE} \(.*\): field '{label}' is empty"
    with pytest.raises(InvalidArgument, match=fault):
        message_of(cls, **{key: b""}).encode(2)
    message_of(cls).encode(2)


@pytest.mark.parametrize("cls", [*KEY_OF, *HARMLESS])
def test_encode_other_empty_strings_accepted(cls: type[FlatMessage]) -> None:
    key = KEY_OF.get(cls)
    strings = [f.name for f in fields(cls) if f.type == "bytes"]  # type: ignore[arg-type]
    message = message_of(cls, **{name: b"" for name in strings if name != key})
    assert decode(message.encode(2)) == message


@pytest.mark.parametrize("at", [0, 1, 39])
@pytest.mark.parametrize("counter", [0, 5])
def test_encode_pipe_without_name_raises(at: int, counter: int) -> None:
    pipes = [NAMED._replace(counter=counter)] * 40
    PipeCounters(tuple(pipes)).encode(3)
    pipes[at] = UNNAMED
    fault = rf"ratelimit packet of type 0 \(pipe counters\): field 'name' of pipe {at + 1} is empty"
    with pytest.raises(InvalidArgument, match=fault):
        PipeCounters(tuple(pipes)).encode(3)


def test_encode_profile_without_name_accepted() -> None:
    counts = ProfileCounts((ProfileCount(b"", b"", 0), ProfileCount(b"", None, 1)))
    assert decode(counts.encode(2)) == counts


@pytest.mark.parametrize("empty", ["", b"", 0])
@pytest.mark.parametrize(
    ("module", "kind", "before"),
    [
        ("ratelimit", 0, ()),
        ("dialog", 1, ()),
        ("dialog", 2, ()),
        ("ul", 1, ("location",)),
        ("ul", 2, ("",)),
        ("ul", 3, ("location",)),
    ],
)
def test_builder_empty_key_raises(
    module: str, kind: int, before: tuple[str, ...], empty: str | bytes | int
) -> None:
    builder = PacketBuilder(module, kind, 2)
    for text in before:
        builder.push_str(text)
    _ = builder.push_int(empty) if isinstance(empty, int) else builder.push_str(empty)
    with pytest.raises(InvalidArgument, match=f"{module} packet of type {kind} .*is empty"):
        builder.build()
    with pytest.raises(InvalidArgument, match="is empty"):
        builder.push_int(1).push_int(2).push_int(3).build()


@pytest.mark.parametrize(
    ("module", "kind", "version"),
    [
        ("mymodule", 0, 1),
        ("ratelimit", 1, 1),
        ("ratelimit", 0, 2),
        ("dialog", 3, 1),
        ("dialog", 4, 1),
        ("ul", 4, 1),
        ("ul", 5, 1),
        ("ul", 6, 1),
    ],
)
def test_builder_of_other_message_accepts_empty_strings(
    module: str, kind: int, version: int
) -> None:
    packet = PacketBuilder(module, kind, 2, version).push_str("").push_str("").build()
    assert packet.payload == bytes(8)


@pytest.mark.parametrize(("module", "kind"), [(m, k) for m, kinds in KEYS.items() for k in kinds])
@pytest.mark.parametrize(
    "payload", [b"", b"\0\0", b"\0" * 3, b"\7\0\0\0\0\0\0\0", b"\xff\xff\xff\xff\0\0\0\0"]
)
def test_require_keys_payload_without_key_passes(module: str, kind: int, payload: bytes) -> None:
    Packet(module, kind, 2, payload).require_keys()


@pytest.mark.parametrize(("cls", "key"), KEY_OF.items(), ids=lambda value: str(value)[-20:])
def test_decode_empty_key_accepted(cls: type[FlatMessage], key: str) -> None:
    packet = raw_of(message_of(cls), key)
    (received,) = FrameDecoder().feed(packet.encode())
    assert decode(received) == message_of(cls, **{key: b""})
    with pytest.raises(InvalidArgument, match="is empty"):
        received.require_keys()


def test_decode_pipe_without_name_accepted() -> None:
    payload = PipeCounters((NAMED._replace(name=b"KEY"),)).encode(3).payload
    packet = Packet("ratelimit", 0, 3, payload.replace(b"\3\0\0\0KEY", bytes(4)))
    assert decode(packet) == PipeCounters((NAMED._replace(name=b""),))
    with pytest.raises(InvalidArgument, match="is empty"):
        packet.require_keys()


@pytest.mark.parametrize("captured", captured_frames(), ids=lambda c: f"{c.module}-{c.type}")
def test_captured_frame_has_keys(captured: Captured) -> None:
    for packet in FrameDecoder().feed(captured.frame):
        packet.require_keys()


def test_captured_stream_has_keys() -> None:
    for packet in FrameDecoder().feed(captured_stream()[0]):
        packet.require_keys()


def test_keys_belong_to_known_messages() -> None:
    assert {(module, kind) for module, kinds in KEYS.items() for kind in kinds} <= set(MESSAGES)
    for (module, kind), cls in MESSAGES.items():
        key = KEYS.get(module, {}).get(kind)
        assert key is None or cls.NAME.endswith(key.message)
