"""Recordings: round trips, cut ends, and files that are no recording."""

from __future__ import annotations

import json
import operator
import os
import resource
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import pytest

from clusterer.cli.packets import as_line
from clusterer.errors import ClustererError
from clusterer.runtime.stop import StopFlag
from clusterer.services.admin import replay
from clusterer.services.admin.packets import as_json
from clusterer.services.admin.recording import Record, Recorder, Recording
from clusterer.wire import Packet, PacketBuilder

RECORDS = [
    Record(1_795_389_473.0 + number / 10, 1, (ip, 40_000), packet)
    for number, (ip, packet) in enumerate(
        [
            ("127.0.0.2", Packet("ratelimit", 0, 2)),
            ("::1", PacketBuilder("ul", 2, 3).push_str("location").push_str(b"\xff@x").build()),
            ("127.0.0.2", Packet("m\udcff", -5, 9, b"\0" * 60_000, 7)),
            ("127.0.0.2", Packet("short", 1, None)),
        ]
    )
]

GOOD = PacketBuilder("dialog", 1, 2).push_str("call").build()
FRAME = RECORDS[0].packet.encode()


def write(path: Path, records: Sequence[Record] = RECORDS) -> Path:
    with Recorder(path) as recorder:
        for record in records:
            recorder.add(record)
    return path


def test_recording_round_trips(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path / "a"))
    assert list(recording) == RECORDS
    assert not recording.cut


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_recording_cut_at_end_loses_last_packet_only(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a", RECORDS[:2])
    os.truncate(path, path.stat().st_size - cut - 1)
    recording = Recording(path)
    assert list(recording) == RECORDS[:1]
    assert recording.cut


def test_recording_flushed_part_can_be_read(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a") as recorder:
        recorder.add(RECORDS[0])
        recorder.flush()
        assert list(Recording(tmp_path / "a")) == RECORDS[:1]


def test_recording_lines_of_later_versions_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a", RECORDS[:1])
    path.write_text(path.read_text() + '{"note": "hello"}\n')
    assert list(Recording(path)) == RECORDS[:1]


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '"frame"',
        '{"frame": "zz", "time": 1, "receiver": 1, "source": "a:1"}',
        '{"frame": "50", "time": 1, "receiver": 1, "source": "a:1"}',
        '{"frame": "00", "time": 1, "receiver": 1, "source": "a"}',
        '{"frame": ""}',
        *(
            f'{{"frame": "%s", "time": {time}, "receiver": 1, "source": "a:1"}}' % FRAME.hex()
            for time in ("Infinity", "NaN", "1e300", "-1", "null")
        ),
        "[" * 200_000,
    ],
    ids=lambda line: line[-60:],
)
def test_recording_invalid_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a", RECORDS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ClustererError, match="line 3: no packet"):
        list(Recording(path))


@pytest.mark.parametrize("text", ["", "hello\n", "[1]\n", '{"other": 1}\n'])
def test_recording_other_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    path.write_text(text)
    with pytest.raises(ClustererError, match="is no recording"):
        list(Recording(path))


def test_recording_of_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"clusterer recording": 2}\n')
    with pytest.raises(ClustererError, match="version 2, this program reads 1"):
        list(Recording(path))


def test_recording_existing_is_kept_and_missing_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    with pytest.raises(ClustererError, match="not overwritten"):
        Recorder(path)
    with pytest.raises(ClustererError, match="cannot write"):
        Recorder(tmp_path / "none" / "a")
    with pytest.raises(ClustererError, match=r"cannot read .*none"):
        list(Recording(tmp_path / "none"))


def test_recording_on_full_disk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def record() -> None:
        with Recorder(path) as recorder:
            for _ in range(10):
                recorder.add(RECORDS[2])
            recorder.flush()

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(ClustererError, match=r"cannot write .*File too large"):
            record()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    recording = Recording(path)
    assert list(recording) == []
    assert recording.cut


# -- replay ----------------------------------------------------------------------------------


class Sent:
    """Records sent packets and their times."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.times: list[float] = []
        self.began = monotonic()

    def __call__(self, packets: Sequence[Packet]) -> None:
        self.packets += packets
        self.times += [monotonic() - self.began] * len(packets)


def test_replay_pauses_are_kept_and_shortened() -> None:
    sent = Sent()
    records = [RECORDS[0]._replace(time=number * 1_000.0) for number in range(3)]
    done = replay.run(records, sent, StopFlag(), speed=2_000)
    assert sent.packets == [record.packet for record in records]
    assert all(map(operator.ge, sent.times, (0, 0.5, 1)))
    assert done.packets == 3
    assert 1 <= done.seconds < 100


def test_replay_at_max_speed_has_no_pauses() -> None:
    sent = Sent()
    records = [RECORDS[0]._replace(time=float(number)) for number in range(1_200)]
    assert replay.run(records, sent, StopFlag(), speed=None).packets == 1_200
    assert sent.times[-1] < 10
    assert len(set(sent.times)) == 3, "500 at once"


def test_replay_clock_set_back_goes_on() -> None:
    sent = Sent()
    records = [RECORDS[0], RECORDS[0]._replace(time=RECORDS[0].time - 3_600)]
    replay.run(records, sent, StopFlag(), speed=1)
    assert len(sent.packets) == 2
    assert sent.times[-1] < 10


def test_replay_packets_can_get_other_machine_id() -> None:
    sent = Sent()
    done = replay.run(RECORDS, sent, StopFlag(), speed=None, machine_id=7)
    assert [packet.machine_id for packet in sent.packets] == [7, 7, 7, None]
    assert done.left_out == 0


def test_replay_to_cluster_leaves_out_foreign_packets() -> None:
    sent = Sent()
    done = replay.run(RECORDS, sent, StopFlag(), speed=None, strict=True)
    assert [packet.machine_id for packet in sent.packets] == [2, 3]
    assert (done.packets, done.left_out) == (2, 2)


@pytest.mark.parametrize("strict", [False, True])
def test_replay_of_packets_that_crash_nodes_leaves_them_out(strict: bool) -> None:
    unnamed = Packet("ratelimit", 0, 2, bytes(16))
    aor = Packet("ul", 3, 2, b"\1\0\0\0l" + bytes(4))
    records = [RECORDS[0]._replace(packet=p) for p in (GOOD, unnamed, GOOD, aor, GOOD)]
    sent = Sent()
    done = replay.run(records, sent, StopFlag(), speed=None, machine_id=7, strict=strict)
    assert sent.packets == [GOOD._replace(machine_id=7)] * 3
    assert (done.packets, done.left_out, done.harmful) == (3, 0, 2)
    fault = "packet 2: ratelimit packet of type 0 (pipe counters): field 'name' of pipe 1 is empty"
    assert done.first_harmful.startswith(fault)


def test_replay_stopped_ends_at_once() -> None:
    sent, stop = Sent(), StopFlag()

    def send(packets: Sequence[Packet]) -> None:
        sent(packets)
        stop.set()

    records = [RECORDS[0], RECORDS[0]._replace(time=RECORDS[0].time + 60)]
    done = replay.run(records, send, stop, speed=1)
    assert done.packets == 1
    assert done.seconds < 10


def test_replay_very_long_pause_is_waited_for() -> None:
    """A clock that was wrong by years, or a speed close to 0."""
    sent = Sent()
    stop = threading.Event()

    class Impatient(StopFlag):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            assert timeout < 2**31 / 1000, "milliseconds in a C int"
            stop.set()
            return True

    for record, speed in ((RECORDS[0]._replace(time=9e10), 1.0), (RECORDS[1], 1e-300)):
        stop.clear()
        replay.run([RECORDS[0], record], sent, Impatient(), speed=speed)
        assert stop.is_set()
    assert len(sent.packets) == 2


# -- lines -----------------------------------------------------------------------------------


def test_tail_line_of_known_message_has_fields() -> None:
    pipe = PacketBuilder("ratelimit", 0, 2).push_str("a b").push_int(1).push_int(100).push_int(7)
    record = Record(1_795_389_473.5, 1, ("127.0.0.2", 40_000), pipe.build())
    line = as_line(record)
    assert line.partition(" ")[2].startswith("node 2 ratelimit pipe counters pipes=")
    assert line[8:13] == ".500 "
    assert "a b" in line
    found = json.loads(json.dumps(as_json(record)))
    assert found["message"] == "pipe counters"
    assert found["fields"]["pipes"][0]["limit"] == 100
    assert (found["node"], found["source"], found["error"]) == (2, "127.0.0.2:40000", None)


def test_tail_line_of_unknown_message_is_hex() -> None:
    record = RECORDS[0]._replace(packet=Packet("mine\n\x1b[2J", 5, 2, b"\x01\x02"))
    line = as_line(record)
    assert "type 5 payload=0102" in line
    assert line.isprintable()
    found = as_json(record)
    assert (found["message"], found["fields"], found["payload"]) == (None, None, "0102")


def test_tail_line_of_long_message_stays_one_line() -> None:
    assert len(as_line(RECORDS[2])) < 600
    assert "and 59800 bytes more" in as_line(RECORDS[2])
    assert len(as_json(RECORDS[2])["payload"]) == 120_000
    json.dumps(as_json(RECORDS[2])).encode()


def test_tail_line_of_invalid_message_names_error() -> None:
    record = RECORDS[0]._replace(packet=Packet("ratelimit", 0, 2, b"\x09\0\0\0ab"))
    assert "payload=090000006162" in as_line(record)
    assert "ratelimit pipe counters" in as_line(record)
    assert as_json(record)["error"]


def test_tail_line_of_ipv6_source_has_brackets() -> None:
    assert as_json(RECORDS[1])["source"] == "[::1]:40000"
