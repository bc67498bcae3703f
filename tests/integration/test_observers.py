"""The captured stream through real sockets and a real listener; the examples of observers.md."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from clusterer import Settings
from clusterer.modules.dialog import Call, Change, Reason
from clusterer.modules.ratelimit import RateLimit
from clusterer.payloads import CallState, DialogDeleted, ProfileCount, ProfileCounts
from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.settings import as_environment
from clusterer.wire import Packet
from tests.support import docs
from tests.support.cluster import load, node
from tests.support.listening import peer
from tests.support.observing import call, captured_packets, contact, observing, update
from tests.support.ports import free_port
from tests.support.processes import spawn, wait_until
from tests.support.vectors import captured_stream

DOC = docs.DOCS / "observers.md"


def parts_of_the_stream() -> tuple[bytes, bytes, bytes]:
    """Return the stream up to the first contact's update, up to the first call's end, the rest."""
    stream, _ = captured_stream()
    ends: list[int] = []
    at = 0
    for packet in captured_packets():
        size = len(packet.encode())
        if (packet.module, packet.type) == ("ul", 4):
            ends.append(at + size)
        if (packet.module, packet.type) == ("dialog", 3) and len(ends) == 1:
            ends.append(at)
        at += size
    assert at == len(stream)
    return stream[: ends[0]], stream[ends[0] : ends[1]], stream[ends[1] :]


def test_captured_stream_adds_and_removes_calls_and_contacts(settings: Settings) -> None:
    until_contact, until_calls, rest = parts_of_the_stream()
    with observing(settings) as seen, peer(seen.port, machine_id=1) as connection:
        connection.sendall(until_contact)
        wait_until(lambda: seen.usrloc.contacts("user1"), message="a contact of user1")
        (registered,) = seen.usrloc.contacts("user1")
        assert registered.uri == "sip:user1@127.0.0.3:6060"

        connection.sendall(until_calls)
        wait_until(lambda: len(seen.dialogs.calls()) == 3, message="three calls")
        wait_until(
            lambda: seen.dialogs.profile_size("caller", "sipp") == 3, message="their profile"
        )
        assert {found.machine_id for found in seen.dialogs.calls()} == {1}
        assert {found.to_uri for found in seen.dialogs.calls()} == {"sip:service@127.0.0.1:5060"}
        assert seen.usrloc.contacts() == []

        connection.sendall(rest)
        wait_until(lambda: not seen.dialogs.calls(), message="the calls' end")
        wait_until(lambda: not seen.dialogs.profiles(), message="the profiles' end")
        assert (seen.dialogs.stats.payload_errors, seen.usrloc.stats.payload_errors) == (0, 0)
        assert seen.instance.listener.counters.callback_errors == 0
        assert (seen.dialogs.stats.messages, seen.usrloc.stats.messages) == (198, 5)


def test_packet_from_other_address_dropped(settings: Settings) -> None:
    with observing(settings) as seen:
        with peer(seen.port, machine_id=3) as connection:
            connection.sendall(call(b"forged").encode(1).encode())
            drops = seen.instance.listener.counters.drops
            wait_until(
                lambda: drops["unknown source"] == 1, message="the drop, once for both of ours"
            )
        with peer(seen.port, machine_id=1) as connection:
            connection.sendall(call(b"real").encode(1).encode())
            wait_until(seen.dialogs.calls, message="the real call")
        assert [found.call_id for found in seen.dialogs.calls()] == ["real"]


def test_call_after_invalid_payload_on_same_connection_kept(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with observing(settings) as seen, peer(seen.port, machine_id=1) as connection:
        bad = call(b"bad").encode(1)
        connection.sendall(bad._replace(payload=bad.payload[:50]).encode())
        connection.sendall(call(b"good").encode(1).encode())
        wait_until(lambda: seen.dialogs.calls("good"), message="the call behind the bad one")
        assert seen.dialogs.stats.payload_errors == 1
        counters = seen.instance.listener.counters
        assert (counters.drops, counters.callback_errors) == ({"bad payload": 1}, 0)
    (record,) = [each for each in caplog.records if "bad payload" in each.message]
    start = "listener: packet from 127.0.0.1 dropped: bad payload "
    start += "(module 'dialog', machine_id 1): dialog "
    assert record.message.startswith(start + "created: field '")
    fields = vars(record)
    assert (fields["cluster"], fields["machine_id"], fields["exc_info"]) == (1, 1, None)


def test_calls_with_messages_out_of_order_stay_confirmed(settings: Settings) -> None:
    """The order is that of OpenSIPS 2.2.8's processes in every seventh call."""
    ended = call(b"ended")
    deletion = DialogDeleted(ended.call_id, ended.from_tag, ended.to_tag)
    messages = [update(b"up"), call(b"up"), ended, deletion, update(b"ended"), call(b"last")]
    with observing(settings) as seen, peer(seen.port, machine_id=1) as connection:
        connection.sendall(b"".join(message.encode(1).encode() for message in messages))
        wait_until(lambda: seen.dialogs.calls("last"), message="the last message")
        states = {found.call_id: found.sent.state for found in seen.dialogs.calls()}
        assert states == {"up": CallState.CONFIRMED, "last": CallState.CONFIRMED_NO_ACK}
        assert seen.dialogs.stats.stale == 2


def test_calls_of_node_set_down_end(settings: Settings) -> None:
    told: list[Change[Call]] = []
    with (
        observing(settings, end_calls_after=2) as seen,
        peer(seen.port, machine_id=1) as connection,
    ):
        seen.dialogs.on_call(told.append)
        connection.sendall(call(b"one").encode(1).encode())
        wait_until(seen.dialogs.calls, message="the call")
        set_status.run(Context(settings), 1, 1, 0, "bin", by="test")
        wait_until(lambda: not seen.dialogs.calls(), message="the end of the node's call")
        assert told[-1].reason is Reason.NOT_UP


def damaged(packet: Packet, chance: random.Random) -> Packet:
    """Return the packet with other bytes, cut off, or with bytes after its end."""
    payload = bytearray(packet.payload)
    for _ in range(chance.randint(0, 2)):
        if payload:
            payload[chance.randrange(len(payload))] = chance.choice((0, 1, 127, 128, 255))
    if chance.random() < 0.4:
        del payload[chance.randrange(len(payload) + 1) :]
    return packet._replace(payload=bytes(payload) + bytes(chance.choice((0, 0, 3))))


def test_damaged_payloads_of_all_modules_keep_connection(
    settings: Settings,
) -> None:
    """Each packet is taken, or counted as invalid by its module and by the listener."""
    chance = random.Random(4)
    captured = list({(each.module, each.type): each for each in captured_packets()}.values())
    packets = [damaged(chance.choice(captured), chance) for _ in range(5_000)]
    with observing(settings) as seen, peer(seen.port, machine_id=1) as connection:
        pipes = RateLimit(seen.instance, accept_pipes_from=1, auth_check=True)
        pipes.start()
        connection.sendall(b"".join(packet.encode() for packet in packets))
        connection.sendall(call(b"last").encode(1).encode())
        wait_until(lambda: seen.dialogs.calls("last"), message="the call behind all of them")
        counters = seen.instance.listener.counters
        assert (counters.packets, counters.wire_errors) == (5_001, 0)
        assert counters.callback_errors == 0
    by_module = Counter(packet.module for packet in packets)
    stats = seen.dialogs.stats, seen.usrloc.stats, pipes.stats
    assert min(each.payload_errors for each in stats) > 100
    assert counters.drops == {"bad payload": sum(each.payload_errors for each in stats)}
    taken = [
        seen.dialogs.stats.messages + seen.dialogs.stats.payload_errors,
        seen.usrloc.stats.messages + seen.usrloc.stats.payload_errors,
        pipes.stats.packets_received + pipes.stats.payload_errors,
    ]
    assert taken == [by_module["dialog"] + 1, by_module["ul"], by_module["ratelimit"]]


def test_docs_example_shows_contacts_calls_and_profiles(settings: Settings, tmp_path: Path) -> None:
    (example,) = docs.examples(DOC)
    path = tmp_path / "program.py"
    path.write_text(example, encoding="utf-8")
    port = free_port()
    load(settings, [node(1, port), node(2, free_port(), host="127.0.0.2", failed_attempts=1000)])
    soon = int(time.time()) + 600
    with spawn([path], as_environment(settings)) as process:
        wait_until(lambda: _listens(port), message="the program's listener")
        with peer(port) as connection:
            for message in (
                contact(expires=soon),
                call(expires=soon),
                ProfileCounts((ProfileCount(b"caller", b"sipp", 1),)),
            ):
                connection.sendall(message.encode(2).encode())
            for line in (
                "user1 at sip:a@192.0.2.1: added (message)",
                "user1 can be reached at sip:a@192.0.2.1",
                "sip:sipp@127.0.0.3:6061 talks to sip:service@127.0.0.1:5060",
                "1 calls in caller=sipp",
            ):
                wait_until(lambda line=line: line in process.output(), message=line)  # type: ignore[misc]


def _listens(port: int) -> bool:
    try:
        with peer(port):
            return True
    except ConnectionRefusedError:
        return False


def test_docs_example_of_messages_prints_documented_text(tmp_path: Path) -> None:
    page = DOC.read_text(encoding="utf-8")
    (example,) = (block for block in docs.blocks(page, "python") if "ContactDeleted" in block)
    path = tmp_path / "program.py"
    path.write_text(example, encoding="utf-8")
    with spawn([path]) as process:
        assert process.wait() == 0, process.output()
        assert f"prints `{process.output().strip()}`" in page
