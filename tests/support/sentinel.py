"""Redis servers on loopback addresses, watched by real sentinels that fail over."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import free_port
from tests.support.processes import end_group, start, wait_until
from tests.support.programs import require_program
from tests.support.redis_server import RedisServer
from tests.support.scale import scaled

SERVICE = "sip"
HOSTS = ("127.0.78.1", "127.0.78.2", "127.0.78.3")
PATIENT_S = 60.0
DOWN_AFTER_MS = scaled(1500, 500)
"""Below a second, other tests on the same cores may cause a failover that no test asked for."""
FAILOVER_TIMEOUT_MS = 1000


LINK, _PASSWORD = "link", "between-servers"
"""The user with which replicas and sentinels connect to a server."""
_OPTIONS = {
    "user": f"{LINK} on >{_PASSWORD} ~* &* +@all",
    "masteruser": LINK,
    "masterauth": _PASSWORD,
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
}
_PERIODS_MS = {"ping-period": 200, "info-period": 200, "publish-period": 500}


class Sentinel:
    """One redis-sentinel process."""

    def __init__(self, address: str, port: int, *, config: str) -> None:
        self.address, self.port = address, port
        self.directory = Path(tempfile.mkdtemp(prefix="clusterer-sentinel-"))
        self._config = self.directory / "sentinel.conf"
        self._config.write_text(
            f"port {port}\nbind {address}\ndir {self.directory}\n"
            f"sentinel announce-ip {address}\n{config}",
            encoding="ascii",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; what it knew before is in its configuration file."""
        program = require_program("redis-sentinel")
        self._process = start([program, self._config], self.directory / "log")
        wait_until(self._answers, PATIENT_S, "the sentinel answers")
        with contextlib.suppress(redis.ResponseError), self.client() as client:
            # Redis 7. After a failover a sentinel connects to the new master within a ping period:
            # by default a second, in which that master would count as down again.
            for name, ms in _PERIODS_MS.items():
                client.execute_command("SENTINEL", "DEBUG", name, str(ms))

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self, **options: str) -> redis.Redis:
        """Return a client that gives text; the caller closes it."""
        return redis.Redis(
            host=self.address,
            port=self.port,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            **options,  # type: ignore[arg-type]
        )

    def log(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the sentinel is not running"
        return self._process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            end_group(self._process)
        shutil.rmtree(self.directory, ignore_errors=True)


class SentinelRedis:
    """A master, two replicas and three sentinels, each pair on an address of its own."""

    def __init__(self, *, down_after_ms: int = DOWN_AFTER_MS) -> None:
        port, sentinel_port = free_port(), free_port()
        self.servers = [RedisServer(address=host, port=port, options=_OPTIONS) for host in HOSTS]
        config = (
            f"sentinel monitor {SERVICE} {HOSTS[0]} {port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\n"
            f"sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT_MS}\n"
            f"sentinel parallel-syncs {SERVICE} 2\n"
            f"sentinel auth-user {SERVICE} {LINK}\n"
            f"sentinel auth-pass {SERVICE} {_PASSWORD}\n"
        )
        self.sentinels = [Sentinel(host, sentinel_port, config=config) for host in HOSTS]
        self.port = port
        members = ",".join(f"{each.address}:{each.port}" for each in self.sentinels)
        self.url = f"sentinel://{members}/{SERVICE}"

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        for server in self.servers[1:]:
            with server.client() as client:
                client.replicaof(HOSTS[0], str(self.port))
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_until_whole()
        return self

    def __exit__(self, *error: object) -> None:
        for sentinel in self.sentinels:
            sentinel.close()
        for server in self.servers:
            if server.running:
                server.kill()  # at SIGTERM a master would wait for its replicas
            server.close()

    # -- what the sentinels know ------------------------------------------------------------------

    def master(self) -> RedisServer:
        """Return the server that most sentinels call the master."""
        names = []
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError), sentinel.client() as client:
                names.append(client.sentinel_get_master_addr_by_name(SERVICE)[0])
        name = max(set(names), key=names.count) if names else HOSTS[0]
        return next(server for server in self.servers if server.address == name)

    def replicas(self) -> list[RedisServer]:
        master = self.master()
        return [server for server in self.servers if server is not master]

    def wait_until_whole(self) -> None:
        """Wait until both replicas follow the master and all sentinels know all about them."""
        wait_until(self._is_whole, PATIENT_S, "all replicas in step and known to the sentinels")

    def _is_whole(self) -> bool:
        try:
            return all(map(self._in_step, self.replicas())) and all(map(_knows, self.sentinels))
        except (redis.RedisError, ValueError, StopIteration):
            return False

    def _in_step(self, replica: RedisServer) -> bool:
        with replica.client() as client:
            found = client.info("replication")
        master = self.master().address
        up = found.get("master_host") == master and found.get("master_link_status") == "up"
        return bool(up and not found.get("master_sync_in_progress"))

    # -- what happens to them ---------------------------------------------------------------------

    def kill_master(self) -> RedisServer:
        """SIGKILL the master; return it."""
        master = self.master()
        master.kill()
        return master

    def fail_over(self) -> RedisServer:
        """Have a sentinel promote a replica; return the server that was the master."""
        master = self.master()

        def accepted() -> bool:
            with contextlib.suppress(redis.ResponseError), self.sentinels[0].client() as client:
                client.execute_command("SENTINEL", "FAILOVER", SERVICE)
                return True
            sleep(0.1)  # the last failover is not over, or no good replica is known yet
            return False

        wait_until(accepted, PATIENT_S, "the sentinel begins a failover")
        return master

    @contextlib.contextmanager
    def partition(self, *, keep_one: bool = False) -> Iterator[RedisServer]:
        """Cut the master off from replicas and sentinels, while clients still reach it; give it.

        Replicas and sentinels have a user of their own, which the old master refuses everything.
        ``keep_one``: one replica stays with the old master, as another user.
        """
        old = self.master()
        cut = [old]
        if keep_one:
            cut.append(self.replicas()[0])
            self._connect_as(cut[1], "default")
            wait_until(lambda: self._in_step(cut[1]), PATIENT_S, "the replica is in step")
        for server in cut:
            with server.client() as admin:
                admin.execute_command("ACL", "SETUSER", LINK, "-@all")
                admin.execute_command("CLIENT", "KILL", "USER", LINK)
        try:
            yield old
        finally:
            for server in cut:
                with server.client() as admin:
                    admin.execute_command("ACL", "SETUSER", LINK, "+@all")
            if keep_one:
                self._connect_as(cut[1], LINK)

    def _connect_as(self, replica: RedisServer, user: str) -> None:
        """Have a replica connect to its master again, as ``user``."""
        with replica.client() as admin:
            admin.config_set("masteruser", user)
        with self.master().client() as admin:
            admin.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def make_whole(self) -> None:
        """Start the servers that were killed, and wait until all is as at the beginning."""
        for server in self.servers:
            if not server.running:
                server.start()
        self.wait_until_whole()

    def wait_for_promotion(self, old: RedisServer) -> float:
        """Wait until most sentinels name another master than ``old``; return when (monotonic)."""
        wait_until(lambda: self.master() is not old, PATIENT_S, "another master")
        return monotonic()


def _knows(sentinel: Sentinel) -> bool:
    with sentinel.client() as client:
        master = client.sentinel_master(SERVICE)
        replicas = client.sentinel_slaves(SERVICE)
    good = [r for r in replicas if not r["is_sdown"] and not r["is_odown"]]
    return (
        len(good) == len(HOSTS) - 1
        and master["num-other-sentinels"] == len(HOSTS) - 1
        and not any(master[f"is_{flag}"] for flag in ("sdown", "odown"))
        and "failover_in_progress" not in master["flags"]
        and all(r["master-link-status"] == "ok" for r in good)
    )
