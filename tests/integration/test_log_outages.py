"""Processes whose log cannot be written: full disk, no reader, a reader that stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.settings import Settings
from tests.support.pids import descendants, wait_until_gone
from tests.support.ports import free_port
from tests.support.processes import (
    EVENTUALLY_S,
    child_environment,
    die_with_parent,
    end_group,
    unmeasured,
    wait_until,
)
from tests.support.seeding import make_node, put_node

SERVICES = ("node", "delivery", "maintenance", "scheduler", "mi")
NO_SCHEDULER = "clusterer: States are not updated: no scheduler runs. See `clusterer doctor`.\n"
OUTAGES = ("full", "no reader", "stuck", "closed")


@contextmanager
def broken(outage: str) -> Iterator[int | None]:
    """Give a descriptor that fails so; None stands for a closed one."""
    reader, writer = os.pipe()
    if outage == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC), writer)
    elif outage == "stuck":
        fill(writer)
    elif outage == "no reader":
        os.close(reader)
    try:
        yield None if outage == "closed" else writer
    finally:
        for descriptor in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def fill(writer: int) -> None:
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)


@contextmanager
def running(
    words: list[str], output: int | None, env: dict[str, str], *, measured: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with ``words``; both outputs go to ``output``, or are closed."""
    command = [sys.executable, *words]
    environment = child_environment(env)
    if output is None:
        command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment if measured else unmeasured(environment),
        start_new_session=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - only system calls between fork and exec
    )
    try:
        yield process
    finally:
        end_group(process)


class Service:
    """How a test starts one kind of process, and the sign that the process works."""

    def __init__(self, kind: str, client: redis.Redis, directory: Path) -> None:
        port = free_port()
        put_node(client, make_node(1, port=port))
        web = directory / "mi.sock"
        words: dict[str, list[str]] = {
            "node": ["-m", "clusterer", "node", "-v"],
            "delivery": ["-m", "workers", "delivery"],
            "maintenance": ["-m", "workers", "maintenance"],
            "scheduler": ["-m", "scheduler"],
            "mi": ["-m", "clusterer", "mi", "--fifo", "", "--http", str(web)],
        }
        works: dict[str, Callable[[], object]] = {
            "node": lambda: _answers(socket.AF_INET, ("127.0.0.1", port)),
            "delivery": lambda: client.exists("rq:workers:clusterer-delivery"),
            "maintenance": lambda: client.exists("rq:workers:clusterer-maintenance"),
            "scheduler": lambda: client.keys("clusterer:scheduler*"),
            "mi": lambda: _answers(socket.AF_UNIX, str(web)),
        }
        self.words, self.works = words[kind], works[kind]


def _answers(family: socket.AddressFamily, address: object) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0  # type: ignore[arg-type]


@pytest.fixture
def environment(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "CLUSTERER_REDIS_URL": redis_url,
        "CLUSTERER_SERVER_ID": "1",
        "CLUSTERER_LOG_LEVEL": "debug",
        "CLUSTERER_DATA_DIR": str(tmp_path),
    }


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("kind", SERVICES)
def test_service_without_log_works_and_ends(
    kind: str,
    outage: str,
    environment: dict[str, str],
    redis_client: redis.Redis,
    tmp_path: Path,
) -> None:
    service = Service(kind, redis_client, tmp_path)
    measured = kind == "node" or outage == "full"  # others run no other lines
    with (
        broken(outage) as output,
        running(service.words, output, environment, measured=measured) as process,
    ):
        wait_until(service.works, message=f"{kind} works")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(EVENTUALLY_S) == 0


@pytest.mark.parametrize("form", ["human", "json"])
def test_service_whose_log_works_again_tells_losses(
    form: str, environment: dict[str, str], redis_client: redis.Redis, tmp_path: Path
) -> None:
    """Here the reader goes on; a disk with room again is the same to the process."""
    service, (reader, writer) = Service("node", redis_client, tmp_path), os.pipe()
    fill(writer)
    environment["CLUSTERER_LOG_FORMAT"] = form
    with running(service.words, writer, environment) as process:
        os.close(writer)
        wait_until(service.works, message="it works")
        os.read(reader, 4096)
        process.send_signal(signal.SIGTERM)
        with os.fdopen(reader, encoding="utf-8") as log:
            said = log.read()
        assert process.wait(EVENTUALLY_S) == 0
    assert len(re.findall(r"\d+ lines? of this log w", said)) == 1, said
    assert said.startswith("{") == (form == "json")


def test_service_says_on_stdout_that_log_is_lost(
    environment: dict[str, str], redis_client: redis.Redis, tmp_path: Path
) -> None:
    service, out = Service("node", redis_client, tmp_path), tmp_path / "out"
    redirect = [f'exec "$@" >{out} 2>/dev/full', "sh", sys.executable, *service.words]
    code = "import os, sys; os.execv('/bin/sh', ['sh', '-c', *sys.argv[1:]])"
    with running(["-c", code, *redirect], None, environment):
        wait_until(service.works, message="it works")
        wait_until(out.read_text, message="said")
    (line,) = out.read_text().splitlines()
    assert (
        "the log cannot be written: No space left on device; the process continues without a log"
        in line
    )


@pytest.mark.parametrize("outage", OUTAGES[:3])
def test_up_without_log_keeps_its_children(outage: str, tmp_path: Path) -> None:
    """Children write to pipes that `up` reads: the children must neither end nor wait."""
    words = ["-m", "clusterer", "up", "-v", "--data-dir", str(tmp_path)]
    with (
        broken(outage) as output,
        running(words, output, {}, measured=outage == "full") as process,
    ):
        kinds = ("redis-server", "node", "delivery", "maintenance", "scheduler")
        client = redis.Redis(unix_socket_path=str(tmp_path / "redis.sock"))
        with client:
            wait_until(lambda: _alive(client), message="all works")
        pids = descendants(process.pid)
        assert len(pids) == len(kinds)
        process.send_signal(signal.SIGTERM)
        assert process.wait(EVENTUALLY_S) == 0
        wait_until_gone(pids)


def _alive(client: redis.Redis) -> bool:
    try:
        found = {key.decode() for key in client.keys("*")}  # type: ignore[union-attr]
    except redis.RedisError:
        return False
    wanted = ("rq:workers:clusterer-delivery", "rq:workers:clusterer-maintenance")
    return found.issuperset(wanted) and any("clusterer:scheduler" in key for key in found)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["list", "--json"],
        ["events"],
        ["events", "--json", "--follow"],
        ["events", "--follow", "--last", "0"],
        ["doctor"],
        ["watch", "1"],
        ["top"],
    ],
    ids=" ".join,
)
def test_command_without_reader_ends_quietly(
    words: list[str], environment: dict[str, str], redis_client: redis.Redis
) -> None:
    """As before ``| head``: no traceback, no complaint."""
    put_node(redis_client, make_node(1, port=free_port()))
    with closing(Context(Settings(redis_url=environment["CLUSTERER_REDIS_URL"]))) as context:
        set_status.run(context, 1, 1, 0, "bin", by="test")
    environment["CLUSTERER_LOG_LEVEL"] = "auto"
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, "-m", "clusterer", *words],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        env=child_environment(environment),
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - only system calls between fork and exec
    ) as process:
        os.close(writer)
        try:
            _, errors = process.communicate(timeout=EVENTUALLY_S)
        finally:
            process.kill()
    said = errors.decode().replace(NO_SCHEDULER, "")
    assert said == ""
    assert process.returncode in (0, 1, 141)


@pytest.mark.parametrize("words", [["list"], ["no-such-command"]], ids=" ".join)
def test_command_whose_errors_cannot_be_written_fails_alike(
    words: list[str], environment: dict[str, str]
) -> None:
    environment["CLUSTERER_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    codes = []
    for target in ("/dev/null", "/dev/full"):
        with open(target, "wb") as errors:  # noqa: PTH123
            done = subprocess.run(
                [sys.executable, "-m", "clusterer", *words],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=child_environment(environment),
                timeout=EVENTUALLY_S,
                check=False,
            )
        codes.append(done.returncode)
    assert codes[0] == codes[1]
    assert codes[0] in (1, 2)


def test_command_with_nonblocking_stdout_writes_all(
    environment: dict[str, str], redis_client: redis.Redis
) -> None:
    """Another program on the same pipe may have set the flag; the reader is slow."""
    for number in range(1, 251):
        put_node(redis_client, make_node(number, port=free_port()))
    environment["CLUSTERER_LOG_LEVEL"] = "auto"
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with running(["-m", "clusterer", "list"], writer, environment) as process:
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as out:
            said = out.read()
        assert process.wait(EVENTUALLY_S) == 0
    assert "Traceback" not in said
    assert said.count("bin:127.0.0") == 250
