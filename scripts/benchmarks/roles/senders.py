"""Senders that use the public API as any application does: its functions, and its coroutines."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import monotonic, monotonic_ns, perf_counter_ns, sleep
from timeit import repeat

from clusterer import BufferFull, Clusterer, aio
from scripts.benchmarks.roles.receivers import packet

PER_CALL = 100
"""Packets in a call of `send_many`, where nothing else is said."""


class Senders:
    """One instance per machine_id; instance S sends to cluster S, or all to a shared one."""

    def __init__(self, machine_ids: list[int], shared_cluster: int = 0) -> None:
        self._shared_cluster = shared_cluster
        self._instances = {number: Clusterer(server_id=number) for number in machine_ids}

    def single(self, sender: int, packets: int) -> int:
        """Send packets with one call each; return when the first began (monotonic ns)."""
        send_to, one = self._instances[sender].send_to, packet(sender)
        began = monotonic_ns()
        for _ in range(packets):
            send_to(sender, "bin", one)
        return began

    def batch(self, sender: int, packets: int, size: int = PER_CALL) -> int:
        """Send packets ``size`` a call; return when the first call began (monotonic ns)."""
        send_many, some = self._instances[sender].send_many, [packet(sender)] * size
        began = monotonic_ns()
        for _ in range(packets // size):
            send_many(sender, "bin", some)
        if packets % size:
            send_many(sender, "bin", some[: packets % size])
        return began

    def post(self, sender: int, packets: int) -> int:
        """Post packets with one call each; return when the first began (monotonic ns).

        Where the buffer is full, waits until the log has its packets, as a program would.
        """
        instance, one = self._instances[sender], packet(sender)
        post = instance.post
        began = monotonic_ns()
        for _ in range(packets):
            try:
                post(sender, "bin", one)
            except BufferFull:
                instance.flush()
                post(sender, "bin", one)
        return began

    def rejected(self, sender: int) -> int:
        """Return how many posts found the buffer full."""
        return self._instances[sender].sender.counts.rejected

    def threads(self, sender: int, threads: int, seconds: float) -> float:
        """Send from several threads at once; return packets per second."""
        instance, one = self._instances[sender], packet(sender)
        begun = monotonic()

        def work(_: int) -> int:
            sent = 0
            while monotonic() < begun + seconds:
                instance.send_to(sender, "bin", one)
                sent += 1
            return sent

        with ThreadPoolExecutor(threads) as pool:
            sent = sum(pool.map(work, range(threads)))
        return sent / (monotonic() - begun)

    def paced(
        self, senders: list[int], packets: int, rate: float, *, post: bool = False
    ) -> list[float]:
        """Send, or ``post``, packets at a steady ``rate`` per second, senders taking turns.

        Returns the duration of each call, in µs.
        """
        took = []
        due = monotonic()
        for number in range(packets):
            sleep(max(due - monotonic(), 0.0))
            due += 1 / rate
            sender = senders[number % len(senders)]
            fresh = packet(sender)
            instance = self._instances[sender]
            send = instance.post if post else instance.send_to
            begun = perf_counter_ns()
            send(self._shared_cluster or sender, "bin", fresh)
            took.append((perf_counter_ns() - begun) / 1e3)
        return took

    def get_nodes(self, sender: int, calls: int) -> float:
        """Return the median duration of a call of `get_nodes`, in µs."""
        ask = self._instances[sender].get_nodes
        return median(repeat(lambda: ask(sender, "bin"), number=1, repeat=calls)) * 1e6

    def check(self, sender: int, machine_id: int, calls: int) -> float:
        """Return the median duration of a call of `check` for a known source, in µs."""
        ask, source = self._instances[sender].check, ("127.0.0.1", 40_000)
        call = lambda: ask(sender, source, machine_id, "bin")  # noqa: E731
        return median(repeat(call, number=1, repeat=calls)) * 1e6


class Tasks:
    """One instance in an event loop; instance S sends to cluster S."""

    def __init__(self, sender: int) -> None:
        self._sender = sender
        self._cluster = aio.Clusterer(server_id=sender)
        self._runner = asyncio.Runner()

    def send(self, packets: int, tasks: int) -> int:
        """Send packets from several tasks; return when the first call began (monotonic ns)."""
        return self._runner.run(self._send(packets, tasks))

    async def _send(self, packets: int, tasks: int) -> int:
        send_to, sender, one = self._cluster.send_to, self._sender, packet(self._sender)

        async def work(count: int) -> None:
            for _ in range(count):
                await send_to(sender, "bin", one)

        began = monotonic_ns()
        counts = [packets // tasks + (task < packets % tasks) for task in range(tasks)]
        await asyncio.gather(*map(work, counts))
        return began
