"""What the listener asks of its event loop, which may be the program's own."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@contextmanager
def heeding_lack_of_room(
    loop: asyncio.AbstractEventLoop, run_short: Callable[[], object]
) -> Iterator[None]:
    """Call ``run_short`` when the loop cannot accept for want of descriptors or memory.

    The loop accepts again in a second. Other errors go to the handler that the loop had before.
    """
    usual = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in _NO_ROOM:
            run_short()
        elif usual is not None:
            usual(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(usual)


async def all_read() -> float:
    """Return a monotonic time up to which all received bytes were looked at.

    A slow callback or a stopped process may keep the loop from reading. Packets that arrived in
    that time must count before a timeout is judged. A connection with parked packets needs one
    turn of the loop to resume, one turn to poll its socket, and one turn to read.
    """
    now = monotonic()
    for _ in range(3):
        await asyncio.sleep(0)
    return now
