"""Receiving instances, and the bare protocol that they are compared to."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable

from clusterer import Clusterer
from clusterer.modules.ratelimit import RateLimit


class Listener:
    """An instance with a no-op callback; receives from the nodes of cluster ``server_id``."""

    def __init__(self, server_id: int) -> None:
        instance = Clusterer(server_id=server_id)
        self._register(instance, server_id)
        self._counters = instance.listener.counters
        _run_in_thread(instance.serve)

    def count(self) -> int:
        """Return how many packets have come to the callback: all but the dropped ones."""
        return self._counters.packets - sum(self._counters.drops.values())

    def _register(self, instance: Clusterer, cluster_id: int) -> None:
        instance.register_module("ratelimit", "bin", nothing, 10, True, cluster_id)


class RatelimitListener(Listener):
    """An instance whose ratelimit module takes the pipe of each packet."""

    def _register(self, instance: Clusterer, cluster_id: int) -> None:
        # The module's timer only counts checks, and this process makes none.
        RateLimit(instance, accept_pipes_from=cluster_id, auth_check=True).start()


class BareListener(Listener):
    """An asyncio server with nothing but `BareProtocol`."""

    def __init__(self, port: int) -> None:
        self._port = port
        _run_in_thread(lambda: asyncio.run(self._serve()))

    def count(self) -> int:
        return BareProtocol.packets

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(BareProtocol, "127.0.0.1", self._port)
        await server.serve_forever()


class BareProtocol(asyncio.Protocol):
    """Splits frames, reads name, type and machine_id, calls a no-op; trusts every byte."""

    packets = 0

    def __init__(self) -> None:
        self._rest = b""
        self._unpack = struct.Struct("<ii").unpack_from

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, end, unpack, count = 0, len(data), self._unpack, 0
        while end - at >= 16:
            size = data[at + 4] | data[at + 5] << 8
            if at + size > end:
                break
            fields = at + 16 + int.from_bytes(data[at + 12 : at + 16], "little")
            name = data[at + 16 : fields]
            kind, machine_id = unpack(data, fields)
            nothing(name, kind, machine_id)
            at += size
            count += 1
        self._rest = data[at:]
        BareProtocol.packets += count


def nothing(*arguments: object) -> None:
    """The no-op callback."""


def _run_in_thread(run: Callable[[], object]) -> None:
    threading.Thread(target=run, daemon=True).start()
