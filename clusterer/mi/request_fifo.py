"""The file of the request FIFO: made, watched, made again when somebody removes it."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from clusterer.errors import ClustererError


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a FIFO or socket."""

    mode: int = 0o660
    uid: int = -1
    """Owner; -1: whoever made it."""
    gid: int = -1


class RequestFifo:
    """A FIFO of ours at ``path``, open for reading as long as this lives."""

    def __init__(self, path: Path, access: Access) -> None:
        """Make it. Raises `ClustererError` if it cannot be made or another process serves it."""
        self.path = path
        try:
            _remove_stale(path)
            os.mkfifo(path, 0o600)
            # Also open for writing: without a writer every read would be an end of file.
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
        """Return what clients have written, empty if there is nothing."""
        try:
            return os.read(self.descriptor, 65536)
        except BlockingIOError:
            return b""

    @property
    def is_in_place(self) -> bool:
        """Whether clients who open the path still get to us."""
        try:
            found, own = self.path.lstat(), os.fstat(self.descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def close(self) -> None:
        """Close it, and remove it unless something else is in its place by now."""
        if self.is_in_place:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISFIFO(found.st_mode):
        raise ClustererError(f"cannot make the FIFO {path}: something else is there already")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
    except OSError as error:
        if error.errno != errno.ENXIO:  # anything but: nobody reads it
            raise
    else:
        raise ClustererError(f"another process serves the FIFO {path} already")
    path.unlink()
