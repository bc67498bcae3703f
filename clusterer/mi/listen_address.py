"""Addresses of JSON-RPC servers: a host and port, or the path of a unix socket."""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from clusterer.errors import ClustererError, InvalidArgument

LOCAL = "127.0.0.1"

_PLACE = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[0-9.]+|localhost):)?(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Place:
    """An IP address and a TCP or UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach the address."""
        return ip_address(self.host).is_loopback


Address = Place | Path


@dataclass(frozen=True, slots=True)
class Access:
    """Mode and owner of a FIFO or socket."""

    mode: int = 0o660
    uid: int = -1
    """Owner; -1: the user of this process."""
    gid: int = -1


def parse_address(text: str) -> Address:
    """Return the address that ``[HOST:]PORT`` or a path with a ``/`` names.

    The default host is 127.0.0.1. Raises `InvalidArgument`.
    """
    if "/" in text:
        return Path(text)
    match = _PLACE.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise InvalidArgument(f"{text!r} is neither [IP:]PORT nor the path of a socket")
    host = (match["host"] or LOCAL).strip("[]").replace("localhost", LOCAL)
    try:
        return Place(str(ip_address(host)), int(match["port"]))
    except ValueError as error:
        raise InvalidArgument(f"{text!r}: {error}") from None


def free_socket_path(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Remove the socket of an ended process; raises `ClustererError` if the socket is in use."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ClustererError(f"cannot listen on {path}: the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ClustererError(f"cannot listen on {path}: another process listens on it")


def grant(path: Path, access: Access) -> None:
    """Set mode and owner of a socket."""
    os.chown(path, access.uid, access.gid)
    path.chmod(access.mode)
