"""A sender that uses the coroutines of the public API."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

from clusterer import aio
from scripts.benchmarks.roles.frames import packet


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
