"""Writing a reply into the FIFO that a client has made for it."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path

from clusterer.errors import ClustererError

PATIENCE_S = 2.0
"""For a client to open its FIFO and read all of the reply. (2.2 waits 0.3 s for the opening.)"""

_REASONS = {
    errno.EPIPE: "its client has gone",
    errno.ELOOP: "is a symbolic link",
    errno.ENOENT: "is not there",
    errno.EACCES: "this user may not write to it",
}

_RETRY_S = 0.01
_LONGEST_NAME = 255


class ReplyFailed(ClustererError):
    """The reply did not reach the client; says why."""


def reply_path(directory: Path, name: str) -> Path:
    """Return where the client of the FIFO ``name`` waits.

    Raises `ReplyFailed` for a name that leads anywhere else than into ``directory``.
    """
    if "/" in name or "\0" in name or name in (".", ".."):
        raise ReplyFailed(
            f"reply FIFO {name!r}: must be a plain name; it is looked for in {directory}"
        )
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise ReplyFailed(f"reply FIFO {name[:40]!r}…: more than {_LONGEST_NAME} bytes")
    return directory / name


async def write_reply(path: Path, data: bytes, patience_s: float = PATIENCE_S) -> None:
    """Write ``data`` to the client's FIFO. Raises `ReplyFailed`, at the latest after
    ``patience_s`` seconds.
    """
    opened = False
    try:
        async with asyncio.timeout(patience_s):
            descriptor = await _open(path)
            opened = True
            try:
                await _write(descriptor, data)
            finally:
                os.close(descriptor)
    except TimeoutError:
        why = "its client does not read" if opened else "no client has opened it"
        raise ReplyFailed(f"reply FIFO {path}: {why} within {patience_s:g} s") from None
    except OSError as error:
        raise ReplyFailed(
            f"reply FIFO {path}: {_REASONS.get(error.errno or 0, error.strerror)}"
        ) from None


async def _open(path: Path) -> int:
    """Open for writing as soon as the client has opened for reading, and never wait in the
    kernel for it: that would stop everybody.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            await asyncio.sleep(_RETRY_S)
            continue
        _require_fifo(path, descriptor)
        return descriptor


def _require_fifo(path: Path, descriptor: int) -> None:
    """Refuse what is not the client's own: a file, or a link to somebody else's FIFO."""
    found = os.fstat(descriptor)
    if stat.S_ISFIFO(found.st_mode) and found.st_nlink == 1:
        return
    os.close(descriptor)
    why = "has several names" if stat.S_ISFIFO(found.st_mode) else "is no FIFO"
    raise ReplyFailed(f"reply FIFO {path}: {why}")


async def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            await _writable(descriptor)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
