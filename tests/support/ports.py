"""Free ports on loopback that no other test run and no outgoing connection will take."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below what Linux hands out to outgoing connections (32768 and up): a server that a test stops
# for a while finds its port free again.
_RANGE = range(15000, 32000)

_locks: list[int] = []


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that is free on ``host`` and stays ours until this process ends."""
    for _ in range(len(_RANGE)):
        port = random.choice(_RANGE)
        if _lock(port):
            if _is_free(host, port):
                return port
            os.close(_locks.pop())
    raise RuntimeError("no free port on loopback")


def _lock(port: int) -> bool:
    directory = Path(tempfile.gettempdir(), f"clusterer-test-ports-{os.getuid()}")
    directory.mkdir(exist_ok=True)
    descriptor = os.open(directory / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _locks.append(descriptor)
    return True


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
