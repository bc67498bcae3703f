"""A private MariaDB server."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import pymysql

from tests.support.clock import ShiftedClock
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, child_environment, end_group, start, wait_until
from tests.support.programs import require_program

START_TIMEOUT_S = EVENTUALLY_S
USER = "clusterer"
PASSWORD = "private"


class MariaDBServer:
    """mariadbd in a temporary directory, on a free loopback port, with the user `USER`.

    A context manager, or `start` and `close`. Start it from the main thread: it dies with the
    thread that started it.
    """

    def __init__(self, *, shifted: bool = False) -> None:
        """``shifted``: it goes by its own `clock`, which can be set."""
        if shifted:
            require_program("faketime")
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="clusterer-mariadb-"))
        self._clock = ShiftedClock(self.directory) if shifted else None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def clock(self) -> ShiftedClock:
        assert self._clock is not None, "MariaDB goes by the host's clock"
        return self._clock

    @property
    def _socket(self) -> str:
        return str(self.directory / "socket")

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def start(self) -> None:
        """Create the data directory if there is none, start the server, wait until it answers."""
        data = self.directory / "data"
        fresh = not data.exists()
        if fresh:
            self._install(data)
        words = [
            f"--socket={self._socket}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--pid-file={self.directory / 'pid'}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
        ]
        server = [require_program("mariadbd", "mysqld"), *self._common_options(data), *words]
        environment = child_environment(self._clock.environment if self._clock else None)
        self._process = start(server, self._log, environment)
        try:
            wait_until(self._answers, START_TIMEOUT_S, "MariaDB answers")
        except BaseException:
            print(self._log.read_text(encoding="utf-8", errors="replace"))
            raise
        if fresh:
            self.execute(
                f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
                f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%'",
            )

    def _install(self, data: Path) -> None:
        """Copy the data directory that the first server of all test processes has made."""
        made = Path(tempfile.gettempdir(), f"clusterer-test-mariadb-{os.getuid()}")
        made.mkdir(exist_ok=True)
        with (made / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (made / "data").exists():
                self._make(made / "new")
                (made / "new").rename(made / "data")
        shutil.copytree(made / "data", data)

    def _make(self, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        installer = require_program("mariadb-install-db", "mysql_install_db")
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        process = start([installer, *self._common_options(data), *options], self._log)
        if process.wait(START_TIMEOUT_S) != 0:
            raise RuntimeError(f"{installer} failed:\n{self._log.read_text(encoding='utf-8')}")

    @staticmethod
    def _common_options(data: Path) -> list[str]:
        options = ["--no-defaults", f"--datadir={data}", "--innodb-log-file-size=8M"]
        return [*options, "--user=root"] if os.getuid() == 0 else options

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "mariadbd ended at once"
        # Asked without PyMySQL, which forgets to close its socket when it cannot connect.
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(self._socket)
            return True
        return False

    def execute(self, *statements: str, database: str | None = None) -> tuple[tuple[Any, ...], ...]:
        """Run ``statements`` as the server's root and return the rows of the last one."""
        connection = pymysql.connect(
            unix_socket=self._socket, user="root", database=database, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return tuple(cursor.fetchall())

    def url(self, database: str) -> str:
        """Return OpenSIPS's form of the URL of ``database``."""
        return f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Create an empty database that no other test has, and return its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name}")

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel and nothing answers."""
        assert self._process is not None, "MariaDB is not running"
        self._process.send_signal(signal.SIGSTOP)
        # Its threads stop one by one.
        threads = Path(f"/proc/{self._process.pid}/task")
        wait_until(lambda: all(_is_stopped(thread) for thread in threads.iterdir()))

    def resume(self) -> None:
        """SIGCONT; does no harm to a server that runs."""
        assert self._process is not None, "MariaDB is not running"
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM and wait; `start` brings the same data back."""
        if self._process is not None:
            end_group(self._process, timeout_s=EVENTUALLY_S)
            self._process = None

    def close(self) -> None:
        """Stop for good and delete all data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _is_stopped(thread: Path) -> bool:
    try:
        stat = (thread / "stat").read_text(encoding="ascii")
    except OSError:  # the thread has ended meanwhile
        return True
    return stat.rpartition(") ")[2].startswith("T")
