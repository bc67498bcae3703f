"""The FIFOs of mi_fifo as files: the one of requests, and those of clients for replies."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path

from clusterer.errors import ClustererError
from clusterer.mi.listen_address import Access

PATIENCE_S = 2.0
"""Limit for a client to open its FIFO and read the reply (OpenSIPS 2.2: 0.3 s to open)."""

_REASONS = {
    errno.EPIPE: "its client has closed it",
    errno.ELOOP: "is a symbolic link",
    errno.ENOENT: "does not exist",
    errno.EACCES: "permission denied",
}

_RETRY_S = 0.01
_LONGEST_NAME = 255


class RequestFifo:
    """The request FIFO at ``path``, open for reading until `close`."""

    def __init__(self, path: Path, access: Access) -> None:
        """Make the FIFO. Raises `ClustererError` if that fails or another process serves it."""
        self.path = path
        try:
            _remove_stale(path)
            os.mkfifo(path, 0o600)
            # Open for writing too: without a writer every read returns an end of file.
            self.descriptor = os.open(
                path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError as error:
            raise ClustererError(f"cannot make the FIFO {path}: {error.strerror}") from error
        try:
            os.fchown(self.descriptor, access.uid, access.gid)
            os.fchmod(self.descriptor, access.mode)
        except OSError as error:
            self.close()
            raise ClustererError(
                f"cannot set mode and owner of the FIFO {path}: {error.strerror}"
            ) from error

    def read(self) -> bytes:
        """Return the bytes that clients wrote, maybe none."""
        try:
            return os.read(self.descriptor, 65536)
        except BlockingIOError:
            return b""

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to this FIFO."""
        try:
            found, own = self.path.lstat(), os.fstat(self.descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def close(self) -> None:
        """Close the FIFO, and remove the path if it leads to this FIFO."""
        if self.is_in_place:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISFIFO(found.st_mode):
        raise ClustererError(f"cannot make the FIFO {path}: the file exists and is not a FIFO")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: no process reads the FIFO
            raise
    else:
        raise ClustererError(f"cannot make the FIFO {path}: another process serves it")
    path.unlink()


class ReplyFailed(ClustererError):
    """A reply that did not reach its client, with the reason."""


def reply_path(directory: Path, name: str) -> Path:
    """Return the path of the reply FIFO ``name``.

    Raises `ReplyFailed` for a path outside of ``directory``.
    """
    if "/" in name or "\0" in name or name in (".", ".."):
        raise ReplyFailed(f"reply FIFO {name!r}: must be a plain name in {directory}")
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
    """Open for writing once the client has opened for reading.

    The function never blocks in the kernel, which would block all clients.
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
    """Refuse a file, and a hard link, which may lead to a FIFO of another user."""
    found = os.fstat(descriptor)
    if stat.S_ISFIFO(found.st_mode) and found.st_nlink == 1:
        return
    os.close(descriptor)
    why = "has hard links" if stat.S_ISFIFO(found.st_mode) else "is not a FIFO"
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
