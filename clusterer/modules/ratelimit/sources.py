"""Default sources of CPU load and unread bytes: Linux's /proc."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

_PROC = Path("/proc")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
_LISTEN = b"0A"


class CpuLoad:
    """The share of the host's CPU time, 0 to 1, that was used since the last call.

    The first call returns 0. Waiting for disks does not count as load, time that the hypervisor
    gave to other guests does. Raises `OSError` or `ValueError` if ``proc``/stat cannot be read.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._path = proc / "stat"
        self._last: tuple[int, int] | None = None

    def __call__(self) -> float:
        idle, total = now = self._read()
        before, self._last = self._last or now, now
        passed = total - before[1]
        if passed <= 0:
            return 0.0
        # iowait may run backwards by a tick.
        return min(1.0, max(0.0, 1 - (idle - before[0]) / passed))

    def _read(self) -> tuple[int, int]:
        """Return ticks since boot: idle and total."""
        with self._path.open("rb") as stat:
            name, *words = stat.readline().split()
        # user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user already.
        ticks = [int(word) for word in words[: _STEAL + 1]]
        if name != b"cpu" or len(ticks) <= _IOWAIT:
            raise ValueError(f"{self._path}: the first line must have the times of all CPUs")
        return ticks[_IDLE] + ticks[_IOWAIT], sum(ticks)


class QueuedBytes:
    """Unread bytes in UDP and TCP sockets.

    ``ports``: only sockets bound to one of these local ports; empty: all sockets of this network
    namespace. Takes about 2 µs a socket. Raises `OSError` or `ValueError` if one of
    ``proc``/net/udp, tcp, udp6 and tcp6 cannot be read.
    """

    def __init__(self, ports: Collection[int] = (), proc: Path = _PROC) -> None:
        self._ports = frozenset(b"%04X" % port for port in ports)
        self._net = proc / "net"

    def __call__(self) -> int:
        return sum(self._unread(self._net / name) for name in ("udp", "tcp", "udp6", "tcp6"))

    def _unread(self, path: Path) -> int:
        try:
            lines = path.read_bytes().splitlines()[1:]
        except FileNotFoundError:
            if path.name.endswith("6"):  # IPv6 may be disabled
                return 0
            raise
        return sum(self._queues(path, lines))

    def _queues(self, path: Path, lines: list[bytes]) -> Iterator[int]:
        for line in lines:
            try:
                _, local, _, state, queues, *_ = line.split()
                # The queue of a listening socket holds connections to be accepted.
                if state != _LISTEN and (not self._ports or local[-4:] in self._ports):
                    yield int(queues[9:], 16)
            except ValueError as error:
                raise ValueError(f"{path}: invalid line {line!r:.120}") from error
