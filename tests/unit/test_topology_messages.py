"""Messages of `clusterer-internal`: exactly the bytes of real nodes, and nothing else taken."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import InvalidArgument, WireError
from clusterer.topology import (
    MESSAGES,
    CapabilityUpdate,
    DescriptionUpdate,
    FullTopology,
    LinkUpdate,
    Message,
    NodeDescription,
    NodeEntry,
    Ping,
    Pong,
    UnknownId,
    decode,
)
from clusterer.wire.layout3 import INTERNAL
from tests.support.vectors3 import captured, packet_of

FRAMES = [
    each for each in captured() if each["module"] == INTERNAL and not each["run"].startswith("3.1")
]

ints = st.integers(-(2**31), 2**31 - 1)
ids = st.lists(ints, max_size=6).map(tuple)
texts = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))
descriptions = st.builds(NodeDescription, texts, texts, ints, ints)
entries = st.builds(NodeEntry, ints, st.none() | descriptions, ints, ints, ids)
states = st.lists(st.tuples(texts, st.booleans()), max_size=4).map(tuple)
messages = st.one_of(
    st.builds(Ping, st.booleans()),
    st.builds(Pong, ids),
    st.builds(LinkUpdate, ints, ints, ints, st.booleans(), ids),
    st.builds(FullTopology, ints, ints, st.lists(entries, max_size=4).map(tuple), ids),
    st.just(UnknownId()),
    st.builds(DescriptionUpdate, descriptions, ids),
    st.builds(
        CapabilityUpdate,
        ints,
        ints,
        st.lists(st.tuples(ints, states), max_size=4).map(tuple),
        st.booleans(),
        ids,
    ),
)


def named(message: Message) -> dict[str, Any]:
    """Return the message with the names of the captured frames' own decoding."""
    found: dict[str, Any] = {}
    match message:
        case Ping():
            found = {"want_list": message.want_list}
        case Pong():
            found = {"nodes": list(message.nodes)}
        case LinkUpdate():
            found = {"neighbour": message.neighbour, "state": int(not message.up)}
        case FullTopology():
            found = {"nodes": [entry(each) for each in message.entries]}
        case DescriptionUpdate():
            found = described(message.description)
        case CapabilityUpdate():
            nodes = {str(node): dict(capabilities) for node, capabilities in message.nodes}
            found = {"nodes": nodes, "want_reply": message.want_reply}
    return found | numbered(message)


def numbered(message: Message) -> dict[str, Any]:
    names = {"seq": "seq", "ts": "timestamp", "path": "path"}
    found = {
        name: getattr(message, field) for name, field in names.items() if hasattr(message, field)
    }
    return {name: list(value) if name == "path" else value for name, value in found.items()}


def described(row: NodeDescription) -> dict[str, Any]:
    return {
        "url": row.url,
        "sip_addr": row.sip_addr,
        "priority": row.priority,
        "no_ping_retries": row.no_ping_retries,
    }


def entry(each: NodeEntry) -> dict[str, Any]:
    own = {
        "id": each.node,
        "ls_seq": each.seq,
        "ls_ts": each.timestamp,
        "neigh": list(each.neighbours),
    }
    return own if each.description is None else own | {"descr": described(each.description)}


def test_messages_captured_are_of_all_types() -> None:
    assert {frame["type"] for frame in FRAMES} == set(MESSAGES)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame['run']}-{frame['name']}")
def test_message_captured_decodes_and_encodes_the_same(frame: dict[str, Any]) -> None:
    packet = packet_of(frame["frame"])
    message = decode(packet)
    assert message is not None
    about = {"cap", "type", "ver", "name", "cluster", "source"}
    expected = {key: value for key, value in frame["decoded"].items() if key not in about}
    assert named(message) == expected
    assert message.encode(frame["decoded"]["cluster"], frame["decoded"]["source"]) == packet
    assert packet.encode().hex() == frame["frame"]


@given(messages, ints, ints)
def test_message_round_trip_is_exact(message: Message, cluster: int, source: int) -> None:
    packet = packet_of(message.encode(cluster, source).encode())
    assert (packet.machine_id, packet.trailer.cluster_id if packet.trailer else None) == (
        source,
        cluster,
    )
    assert decode(packet) == message


@given(messages, st.data())
def test_message_cut_off_raises_only_wire_error(message: Message, data: st.DataObject) -> None:
    packet = message.encode(1, 2)
    size = data.draw(st.integers(0, max(0, len(packet.payload) - 1)))
    if not packet.payload:
        return
    with pytest.raises(WireError, match=message.NAME):
        decode(packet._replace(payload=packet.payload[:size]))


@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=80))
def test_message_of_random_bytes_raises_only_wire_error(kind: int, payload: bytes) -> None:
    packet = Ping(want_list=True).encode(1, 2)._replace(type=kind, payload=payload)
    try:
        message = decode(packet)
    except WireError:
        return
    assert message is not None


@pytest.mark.parametrize("count", [-1, -(2**31), 2**31 - 1, 100_000])
def test_message_with_absurd_count_raises_wire_error(count: int) -> None:
    payload = count.to_bytes(4, "little", signed=True) + bytes(4)
    with pytest.raises(WireError, match="PONG"):
        decode(Pong().encode(1, 2)._replace(payload=payload))


def test_message_with_bytes_behind_it_raises_wire_error() -> None:
    packet = UnknownId().encode(1, 2)._replace(payload=bytes(4))
    with pytest.raises(WireError, match="UNKNOWN_ID: 4 bytes follow"):
        decode(packet)


def test_message_of_unknown_type_or_version_is_none() -> None:
    packet = UnknownId().encode(1, 2)
    assert decode(packet._replace(type=8)) is None
    assert decode(packet._replace(version=2)) is None


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1])
def test_message_with_a_number_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(InvalidArgument, match=str(number)):
        Pong((1, number)).encode(1, 2)
