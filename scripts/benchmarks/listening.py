"""Child process: one receiving instance, or the bare protocol that it is compared to."""

from __future__ import annotations

import asyncio
import resource
import struct
import threading
from collections.abc import Callable

from clusterer import Clusterer
from clusterer.modules.ratelimit import RateLimit
from scripts.benchmarks.serving import answer, argument, serve

MODULE = "ratelimit"


class Bare(asyncio.Protocol):
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
        Bare.packets += count


def nothing(*arguments: object) -> None:
    """The no-op callback."""


def _bare(given: dict[str, int]) -> Callable[[], int]:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", given["port"])
        await server.serve_forever()

    threading.Thread(target=asyncio.run, args=(run(),), daemon=True).start()
    return lambda: Bare.packets


def _instance(server_id: int, *, with_module: bool) -> Callable[[], int]:
    """Receive from the peers of the cluster that has the instance's own number."""
    instance = Clusterer(server_id=server_id)
    if with_module:
        # The timer counts checks, and nothing is checked here.
        module = RateLimit(instance, accept_pipes_from=server_id, auth_check=True)
        module.start()
    else:
        instance.register_module(MODULE, "bin", nothing, 10, True, server_id)
    threading.Thread(target=instance.serve, daemon=True).start()
    counters = instance.listener.counters
    # What was dropped reached no callback.
    return lambda: counters.packets - sum(counters.drops.values())


def main() -> None:
    """Receive, and tell how many packets have come to the callback."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    given = argument()
    if given["kind"] == "bare":
        count = _bare(given)
    else:
        count = _instance(given["server_id"], with_module=given["kind"] == "ratelimit")
    answer("ready")
    serve({"count": count})


if __name__ == "__main__":
    main()
