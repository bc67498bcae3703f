"""The file of the request FIFO, and its permissions."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from clusterer.errors import ClustererError


@dataclass(frozen=True, slots=True)
class Access:
    """Mode and owner of a FIFO or socket."""

    mode: int = 0o660
    uid: int = -1
    """Owner; -1: the user of this process."""
    gid: int = -1


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
