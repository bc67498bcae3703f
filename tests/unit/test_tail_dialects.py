"""Captured packets of OpenSIPS 3.x as lines, as JSON and in recordings."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from clusterer.cli.packets import as_line
from clusterer.services.admin.packets import as_json
from clusterer.services.admin.recording import Record, Recorder, Recording, packet_of
from clusterer.wire import Packet, PacketBuilder3, Trailer
from clusterer.wire.layout3 import BRIDGE, EXTRA, INTERNAL
from tests.support.vectors import opensips3_frames, raw_frame3

SUPPORTED = [each for each in opensips3_frames() if "3.1.17" not in each.run]


def record_of(frame: bytes) -> Record:
    return Record(1_795_389_473.5, 1, ("127.0.0.2", 40_000), packet_of(frame))


def test_tail_captured_frames_of_3x_have_fields() -> None:
    """The types of 3.1 have other numbers."""
    assert len(SUPPORTED) > 400
    for captured in SUPPORTED:
        found = json.loads(json.dumps(as_json(record_of(captured.frame))))
        named = captured.decoded.get("trailer", captured.decoded)
        assert found["error"] is None
        assert found["message"], captured
        assert found["fields"] is not None
        assert (found["cluster"], found["destination"]) == (named["cluster"], named.get("dest"))


def test_tail_line_of_3x_packet_names_cluster() -> None:
    packet = PacketBuilder3(EXTRA, 13, 22, cluster_id=3).push_str("vip").build()
    line = as_line(record_of(packet.encode()))
    assert (
        line.partition(" ")[2] == "node 22 of cluster 3 clusterer-extra sharing tag active tag=vip"
    )


def test_tail_line_of_topology_has_its_fields() -> None:
    ping = PacketBuilder3(INTERNAL, 0, 22, cluster_id=3).push_int(1).build()
    line = as_line(record_of(ping.encode()))
    assert line.endswith("node 22 of cluster 3 clusterer-internal PING want_list=true")
    found = as_json(record_of(ping.encode()))
    assert (found["cluster"], found["destination"], found["fields"]) == (
        3,
        None,
        {"want_list": True},
    )


def test_tail_topology_with_foreign_text_stays_printable() -> None:
    builder = PacketBuilder3(INTERNAL, 5, 22, cluster_id=3).push_str(b"bin:\xff\x1b").push_str("")
    packet = builder.push_int(50).push_int(3).push_int(1).push_int(22).build()
    record = record_of(packet.encode())
    assert as_line(record).isprintable()
    json.dumps(as_json(record), ensure_ascii=False).encode()
    assert as_json(record)["fields"] == {
        "description": {
            "url": "bin:\ufffd\x1b",
            "sip_addr": "",
            "priority": 50,
            "no_ping_retries": 3,
        },
        "path": [22],
    }


def test_tail_topology_of_unknown_type_or_fields_shows_hex() -> None:
    unknown = record_of(PacketBuilder3(INTERNAL, 77, 22).push_int(1).build().encode())
    assert "type 77 payload=01000000" in as_line(unknown)
    assert as_json(unknown)["error"] is None
    cut = record_of(PacketBuilder3(INTERNAL, 0, 22).build().encode())
    assert "payload=" in as_line(cut)
    assert "PING" in as_json(cut)["error"]


def test_recording_of_3x_packets_round_trips(tmp_path: Path) -> None:
    frames = [
        *(each.frame for each in opensips3_frames()),
        raw_frame3(b"short"),
        raw_frame3(b"pipes" + struct.pack("<iiii", 7, 3, 24, BRIDGE)),
        raw_frame3(bytes(60_000), name=b"\xff\xfe"),
    ]
    records = [record_of(frame) for frame in frames]
    with Recorder(tmp_path / "a") as recorder:
        for record in records:
            recorder.add(record)
    read = list(Recording(tmp_path / "a"))
    assert read == records
    assert [record.packet.encode() for record in read] == frames


def test_tail_packet_without_trailer_names_no_cluster() -> None:
    record = record_of(raw_frame3(b"short"))
    assert record.packet == Packet("mod-repl", 7, None, b"short", 1, Trailer(None))
    assert "node ? mod-repl type 7 payload=73686f7274" in as_line(record)
    assert as_json(record)["cluster"] is None
