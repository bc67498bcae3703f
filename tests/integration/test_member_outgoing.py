"""The connection of a member to one node: made on demand, bounded, and read as well."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic

from clusterer.delivery.link import Link
from clusterer.member.outgoing import MAX_WAITING, PAUSE_S, Outgoing
from clusterer.wire import Packet, PacketBuilder3
from clusterer.wire.layout3 import INTERNAL
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until

HOST, SOURCE = "127.0.0.22", "127.0.0.23"
PING = PacketBuilder3(INTERNAL, 0, 23).push_int(1).build()
UNKNOWN_ID = PacketBuilder3(INTERNAL, 4, 22).build()


class Node:
    """A server that accepts connections, and reads only when asked."""

    def __init__(self, port: int = 0) -> None:
        self.address = (HOST, port or free_port(HOST))
        self._listener = socket.create_server(self.address)
        self._listener.settimeout(EVENTUALLY_S)

    def accept(self) -> socket.socket:
        sock, (host, _) = self._listener.accept()
        assert host == SOURCE, "nodes accept frames from the address of a row only"
        sock.settimeout(EVENTUALLY_S)
        return sock

    def close(self) -> None:
        self._listener.close()


class Member:
    """Records what a connection hands over."""

    def __init__(self, address: tuple[str, int], timeout_s: float = EVENTUALLY_S) -> None:
        self.packets: list[Packet] = []
        self.failures: list[str] = []
        self.outgoing = Outgoing(
            address, SOURCE, timeout_s, self.packets.append, self.failures.append
        )


def run(check: Callable[[Node, Member], Awaitable[None]]) -> None:
    """Run a coroutine with a node and a member of it."""

    async def checked() -> None:
        node = Node()
        member = Member(node.address)
        try:
            await check(node, member)
        finally:
            member.outgoing.close()
            node.close()
            for _ in range(5):  # turns of the loop in which transports end
                await asyncio.sleep(0)

    asyncio.run(checked())


@contextlib.asynccontextmanager
async def accepted(node: Node) -> AsyncIterator[socket.socket]:
    sock = await asyncio.to_thread(node.accept)
    with sock:
        yield sock


async def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := await asyncio.to_thread(sock.recv, size - len(data))):
        data += chunk
    return data


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


def test_outgoing_sends_frames_in_order_on_one_connection() -> None:
    async def check(node: Node, member: Member) -> None:
        frames = [PING._replace(type=kind).encode() for kind in range(5)]
        assert all(map(member.outgoing.send, frames[:3])), "they wait for the connection"
        async with accepted(node) as sock:
            assert await received(sock, 3 * len(frames[0])) == b"".join(frames[:3])
            assert all(map(member.outgoing.send, frames[3:]))
            assert await received(sock, 2 * len(frames[0])) == b"".join(frames[3:])
        assert not member.failures

    run(check)


def test_outgoing_hands_over_what_the_node_writes_there() -> None:
    async def check(node: Node, member: Member) -> None:
        member.outgoing.send(PING.encode())
        async with accepted(node) as sock:
            frame = UNKNOWN_ID.encode()
            sock.sendall(frame[:20])
            await until(lambda: member.outgoing.descriptor >= 0)
            sock.sendall(frame[20:] + frame)
            await until(lambda: len(member.packets) == 2)
        assert member.packets == [UNKNOWN_ID, UNKNOWN_ID]

    run(check)


def test_outgoing_connects_again_after_the_node_closed() -> None:
    async def check(node: Node, member: Member) -> None:
        for _ in range(2):
            assert member.outgoing.send(PING.encode())
            async with accepted(node) as sock:
                assert await received(sock, len(PING.encode()))
            await until(lambda: member.outgoing.descriptor == -1)
        assert not member.failures, "a node closes idle connections"

    run(check)


def test_outgoing_to_a_closed_port_fails_and_pauses() -> None:
    async def check(node: Node, member: Member) -> None:
        node.close()
        assert member.outgoing.send(PING.encode())
        await until(lambda: member.failures)
        assert "refused" in member.failures[0]
        assert not member.outgoing.send(PING.encode()), "a pause begins"
        member.outgoing.resume()
        assert member.outgoing.send(PING.encode()), "the node has sent a packet"
        await until(lambda: len(member.failures) == 2)
        await asyncio.sleep(PAUSE_S)
        assert member.outgoing.send(PING.encode()), "the pause is over"

    run(check)


def test_outgoing_to_a_silent_address_fails_in_time() -> None:
    async def checked() -> None:
        full = socket.socket()
        full.bind((HOST, free_port(HOST)))
        full.listen(0)
        caller = socket.create_connection(full.getsockname(), EVENTUALLY_S)
        assert select.select([full], [], [], EVENTUALLY_S)[0], "the queue of the kernel is full"
        member = Member(full.getsockname(), timeout_s=1.0)
        began = monotonic()
        assert member.outgoing.send(PING.encode())
        await until(lambda: member.failures)
        assert monotonic() - began >= 1.0
        caller.close()
        full.close()

    asyncio.run(checked())


def test_outgoing_to_a_node_that_reads_nothing_is_bounded() -> None:
    async def check(node: Node, member: Member) -> None:
        frame = PING._replace(payload=bytes(60_000)).encode()
        member.outgoing.send(frame)
        async with accepted(node):
            await until(lambda: member.outgoing.descriptor >= 0)
            sent = 0
            while member.outgoing.send(frame):
                sent += len(frame)
                assert sent < 100 * MAX_WAITING, "more than any kernel takes"
                await asyncio.sleep(0)
            await until(lambda: member.failures)
            assert member.failures == ["reads nothing"]
            assert member.outgoing.descriptor == -1, "the connection is closed"

    run(check)


def test_outgoing_that_connects_holds_a_bounded_number_of_bytes() -> None:
    async def check(node: Node, member: Member) -> None:
        frame = PING._replace(payload=bytes(60_000)).encode()
        node.close()
        for number in (1, 2):
            taken = [member.outgoing.send(frame) for _ in range(20)]
            assert sum(taken) == MAX_WAITING // len(frame)
            await until(lambda n=number: len(member.failures) == n)  # type: ignore[misc]
            member.outgoing.resume()

    run(check)


def test_outgoing_sends_waiting_frames_first() -> None:
    """A frame that is sent before the coroutine continues that has made the connection."""

    class Early(Outgoing):
        def made(self, transport: asyncio.Transport) -> None:
            super().made(transport)
            self.send(PING._replace(type=2).encode())

    async def check(node: Node, member: Member) -> None:
        outgoing = Early(node.address, SOURCE, EVENTUALLY_S, print, print)
        frames = [PING._replace(type=kind).encode() for kind in range(3)]
        assert all(map(outgoing.send, frames[:2]))
        async with accepted(node) as sock:
            assert await received(sock, 3 * len(frames[0])) == b"".join(frames)
        outgoing.close()

    run(check)


def test_outgoing_connects_again_while_the_old_connection_ends() -> None:
    async def check(node: Node, member: Member) -> None:
        transports: list[asyncio.Transport] = []

        class Seen(Outgoing):
            def made(self, transport: asyncio.Transport) -> None:
                transports.append(transport)
                super().made(transport)

        outgoing = Seen(node.address, SOURCE, EVENTUALLY_S, print, print)
        outgoing.send(PING.encode())
        async with accepted(node) as first:
            await until(lambda: transports)
            transports[0].close()  # as asyncio does when a write fails
            assert outgoing.send(PING.encode())
            async with accepted(node) as second:
                assert await received(second, len(PING.encode())) == PING.encode()
            assert await received(first, 2 * len(PING.encode())) == PING.encode()
        outgoing.close()

    run(check)


def test_outgoing_survives_an_error_of_any_kind_as_it_connects() -> None:
    class Faulty(Outgoing):
        async def _established(self, link: Link) -> None:
            raise ValueError("a fault of clusterer")

    async def check(node: Node, member: Member) -> None:
        errors: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: errors.append(str(context["exception"]))
        )
        failures: list[str] = []
        outgoing = Faulty(node.address, SOURCE, EVENTUALLY_S, print, failures.append)
        for number in (1, 2):
            assert outgoing.send(PING.encode())
            await until(lambda n=number: len(failures) == n)  # type: ignore[misc]
            outgoing.resume()
        gc.collect()
        assert errors == failures == ["a fault of clusterer"] * 2

    run(check)


def test_outgoing_closes_a_connection_with_bytes_not_bin() -> None:
    async def check(node: Node, member: Member) -> None:
        member.outgoing.send(PING.encode())
        async with accepted(node) as sock:
            sock.sendall(UNKNOWN_ID.encode() + b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: member.failures)
            assert member.packets == [UNKNOWN_ID]

    run(check)


def test_outgoing_from_a_foreign_address_is_a_failure() -> None:
    async def checked() -> None:
        failures: list[str] = []
        outgoing = Outgoing((HOST, 9), "192.0.2.1", 1.0, print, failures.append)
        assert outgoing.send(PING.encode())
        await until(lambda: failures)
        assert "192.0.2.1" in failures[0]

    asyncio.run(checked())


def test_outgoing_closed_while_it_connects_calls_nothing() -> None:
    async def check(node: Node, member: Member) -> None:
        member.outgoing.send(PING.encode())
        member.outgoing.close()
        await asyncio.sleep(0.1)
        assert not member.failures
        assert member.outgoing.descriptor == -1

    run(check)
