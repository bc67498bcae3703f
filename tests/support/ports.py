"""Free ports on loopback that no other test run and no outgoing connection will take."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

# Below what Linux hands out to outgoing connections (32768 and up): a server that a test stops
# for a while finds its port free again.
_RANGE = range(15000, 32000)

_taken: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that is free on ``host`` and stays ours until this process ends."""
    for _ in range(len(_RANGE)):
        port = random.choice(_RANGE)
        if port not in _taken and _lock(port):
            if _is_free(host, port):
                _taken.add(port)
                return port
            fcntl.lockf(_lock_file(), fcntl.LOCK_UN, 1, port)
    raise RuntimeError("no free port on loopback")


@functools.cache
def _lock_file() -> int:
    """Descriptor of the file in which byte N is locked by the process that has port N.

    It is never closed: closing any descriptor of the file releases all locks of this process.
    """
    path = Path(tempfile.gettempdir(), f"clusterer-test-ports-{os.getuid()}.lock")
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _lock(port: int) -> bool:
    try:
        fcntl.lockf(_lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
