"""A morning with two machines, as the docs tell it: a real system, and what its commands print."""

from __future__ import annotations

import getpass
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.support.mariadb_server import PASSWORD, MariaDBServer
from tests.support.ports import free_port
from tests.support.processes import (
    EVENTUALLY_S,
    ChildProcess,
    child_environment,
    spawn,
    unmeasured,
    wait_until,
)
from tests.support.redis_server import RedisServer
from tests.support.terminal import last_screen

PIPES = "--replicate-pipes-to 1 --accept-pipes-from 1"
UP = f"up --server-id 1 {PIPES}"
NODE = f"node --server-id 2 {PIPES}"

LONGEST_S = 3 * EVENTUALLY_S
"""How long a start or a command may take: ten processes begin beside the other tests."""

MODULE_TIMEOUT_S = 40
"""A node is muted for twice as long: that is the time for the commands that show it."""

DURATION_S = 600
"""A node is disabled until the end."""

DATABASE = "mysql+pymysql://opensips:***@127.0.0.1/opensips"

_CLUSTERER = (sys.executable, "-m", "clusterer")
_RQ = (str(Path(sys.executable).with_name("rq")),)
_NOTHING_WAITS = re.compile(r"(?m)^ +\d +\d +0 +- .* 0 s ago")


class Story:
    """Told once, by `tell`; then ``printed`` has what each command printed, by its words.

    ``replies`` has those of Redis, by the key as docs/redis-keys/ writes it; ``names`` are this
    run's ports, hosts and URLs, and what the docs have in their place.
    """

    def __init__(
        self,
        redis: RedisServer,
        mariadb: MariaDBServer,
        home: Path,
        ports: tuple[int, int] | None = None,
    ) -> None:
        self.printed: dict[str, str] = {}
        self.replies: dict[str, object] = {}
        self._redis = redis
        self._mariadb = mariadb
        self._database = mariadb.create_database()
        self._home = home
        self._ports = ports or (free_port("127.0.0.1"), free_port("127.0.0.2"))
        url = mariadb.url(self._database)
        self._environment = {
            "CLUSTERER_REDIS_URL": redis.url,
            "CLUSTERER_DB_URL": url,
            "CLUSTERER_PERSISTENT_MODE": "yes",
            "CLUSTERER_ACCEPT_PIPES_TIMEOUT": str(MODULE_TIMEOUT_S),
            "CLUSTERER_PING_INTERVAL": "0",  # a ping may notice the death before a packet
            "HOME": str(home),
        }
        host = socket.gethostname()
        self.names = {
            url.replace("mysql:", "mysql+pymysql:").replace(f":{PASSWORD}@", ":***@"): DATABASE,
            redis.url: "redis://127.0.0.1:6379/0",
            f"{getpass.getuser()}@{host}": "root@sip1",
            f"on {host}:": "on sip1:",
            f"({host} ": "(sip1 ",
            str(self._ports[0]): "5566",
            str(self._ports[1]): "5566",
        }

    def tell(self) -> None:
        """Run all commands, in a minute."""
        with ExitStack() as stack:
            self._the_table_is_made()
            second = self._start(stack, NODE, "listening on")
            first = self._start(stack, UP, "listening on", *(f"{kind} worker" for kind in _KINDS))
            self._both_work()
            self._an_operator_comes()
            self._machine_2_dies(second)
            self.printed["what up said"] = first.output()

    # -- its parts ---------------------------------------------------------------------------------

    def _the_table_is_made(self) -> None:
        self._run("init-db --example")
        for number, port in enumerate(self._ports, 1):
            change = f"url = 'bin:127.0.0.{number}:{port}', duration = {DURATION_S}"
            statement = f"UPDATE clusterer SET {change} WHERE machine_id = {number}"  # noqa: S608 - numbers
            self._mariadb.execute(statement, database=self._database)
        self._run("reload")

    def _both_work(self) -> None:
        # Its worker may have been there first, and found no listener.
        self._run("set-status 1 1 1 bin")
        self._run("list --server-id 1", lambda text: len(_NOTHING_WAITS.findall(text)) == 2)
        self._run("tail --server-id 2 --count 3")
        with self._redis.client() as client:
            self.replies["clusterer:capture:1"] = client.xrevrange("clusterer:capture:2", count=1)
            self.replies["clusterer:lease:1"] = client.get("clusterer:lease:1")
        self._run(f"rq info --url {self._redis.url}")
        self._run("tail --server-id 2 --write calls.rec --count 5")
        self._run(f"replay calls.rec --to 127.0.0.2:{self._ports[1]}")
        self._run("replay calls.rec --cluster 1 --server-id 2")

    def _an_operator_comes(self) -> None:
        self._run('set-status 1 2 0 bin --reason "kernel update"')
        self._run("events --last 1 --json")
        self._run("set-status 1 2 1 bin")

    def _machine_2_dies(self, machine: ChildProcess) -> None:
        with self._redis.client() as client:
            client.config_set("maxmemory", "256mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
        with self._spawn("watch 2") as watching:
            watching.wait_for_output("up, tries 0/3", LONGEST_S)
            machine.signal(signal.SIGKILL)
            machine.wait()
            watching.wait_for_output("muted by instance", LONGEST_S)
            self.printed["watch 2 | tee watched"] = watching.output()
        self._run("top --once", re.compile(r"disabled .* 0 +0\.0 +0\.0 +muted").search)
        quiet = re.compile(r" 0\.0 per second [^\0]* 1 +0 +- ").search
        self.printed["watch 2"] = last_screen(["watch", "2"], self._environment, quiet)
        for command in ("events --node 2", "list --json --traffic", "doctor --server-id 1"):
            self._run(command)

    # -- how ---------------------------------------------------------------------------------------

    def _spawn(self, words: str) -> AbstractContextManager[ChildProcess]:
        return spawn(["-m", "clusterer", *words.split()], self._environment)

    def _start(self, stack: ExitStack, command: str, *said: str) -> ChildProcess:
        process = stack.enter_context(self._spawn(command))
        for text in said:
            process.wait_for_output(text, LONGEST_S)
        self.printed[command] = process.output()
        return process

    def _run(self, command: str, until: Callable[[str], object] = bool) -> None:
        """Run it to its end, again until what it prints is so; show what it printed otherwise."""
        last = ""
        program = _RQ if command.startswith("rq ") else _CLUSTERER
        arguments = shlex.split(command.removeprefix("rq "))
        environment = child_environment(self._environment)

        def printed() -> str | None:
            nonlocal last
            done = subprocess.run(
                [*program, *arguments],
                env=unmeasured(environment) if program is _RQ else environment,
                cwd=self._home,
                capture_output=True,
                text=True,
                timeout=LONGEST_S,
                check=False,
            )
            last = done.stdout + done.stderr
            return last if until(last) else None

        try:
            self.printed[command] = wait_until(
                printed, LONGEST_S, f"what the docs show of {command}"
            )
        except TimeoutError:
            print(f"--- {command}\n{last}", file=sys.stderr)
            raise


_KINDS = ("delivery", "maintenance", "database")
