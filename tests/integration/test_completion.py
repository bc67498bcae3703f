"""Shell completion, in real shells on a real terminal: Tab is pressed, the line is looked at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.support import docs
from tests.support.processes import (
    EVENTUALLY_S,
    child_environment,
    die_with_parent,
    end_group,
    unmeasured,
    wait_until,
)
from tests.support.programs import find_program
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node

HOME_KEY = "\x01"
START = {
    "bash": ["--rcfile", "bashrc", "-i"],
    "zsh": ["-i"],
    "fish": ["-i"],
}


class Shell:
    """A shell on a terminal of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, pattern: str, timeout_s: float = EVENTUALLY_S) -> None:
        """Wait until something new on the screen matches."""

        def there() -> bool:
            with contextlib.suppress(BlockingIOError):
                self._seen += os.read(self._descriptor, 65536)
            found = re.search(pattern.encode(), self._seen)
            if found:
                self._seen = self._seen[found.end() :]
            return bool(found)

        try:
            wait_until(there, timeout_s, f"{pattern!r} on the screen")
        except TimeoutError as error:
            raise AssertionError(f"{error}; there is {self._seen!r}") from error

    def completes(self, keys: str, line: str) -> None:
        """Check that ``keys`` become ``line``: it is made an argument of echo, and run."""
        self.type(f"{keys}{HOME_KEY}echo = \n")
        self.wait_for(rf"(?<!echo )= {re.escape(line)}[/ ]*\r\n")
        self.wait_for("READY> ")


@contextlib.contextmanager
def shell(kind: str, url: str, home: Path) -> Iterator[Shell]:
    program = find_program(kind) or pytest.skip(f"{kind} is not installed")
    install(kind, home)
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    variables = {
        "CLUSTERER_REDIS_URL": url,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "XDG_CONFIG_HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "TERM": "xterm",
    }
    # What differs between the shells is click's: coverage needs one of them.
    environment = child_environment(variables)
    process = subprocess.Popen(
        [program, *START[kind]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=home,
        env=environment if kind == "bash" else unmeasured(environment),
        start_new_session=True,
        preexec_fn=on_terminal(),  # noqa: PLW1509 - only system calls between fork and exec
    )
    try:
        made = Shell(ours)
        made.wait_for("READY> ")
        yield made
    finally:
        process.kill()  # interactive shells ignore SIGTERM
        end_group(process)
        os.close(ours)
        os.close(theirs)


def on_terminal() -> Callable[[], None]:
    """Return a ``preexec_fn`` that makes stdin the child's controlling terminal."""
    set_death_signal = die_with_parent()

    def take_terminal() -> None:
        set_death_signal()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return take_terminal


def install(kind: str, home: Path) -> None:
    """Do what docs/deployment.md says, in ``home``; and give the shell a prompt to be known by."""
    documented = rf"`(_CLUSTERER_COMPLETE={kind}_source clusterer) > .*?([^/]+?)\"?`"
    found = re.search(documented, docs.read("deployment.md"))
    assert found is not None
    command, name = found.groups()
    (home / "fish" / "completions").mkdir(parents=True)
    bin_dir = Path(sys.executable).parent
    script = subprocess.run(
        ["/bin/sh", "-c", command],
        env=child_environment({"PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"}),
        capture_output=True,
        timeout=EVENTUALLY_S,
        check=True,
    ).stdout
    ((home / "fish" / "completions" if kind == "fish" else home) / name).write_bytes(script)
    (home / "bashrc").write_text("source ./clusterer; PS1='READY> '\n")
    (home / ".zshrc").write_text(
        f"fpath=({home} $fpath); autoload -Uz compinit; compinit -u -D; PS1='READY> '\n"
    )
    (home / "fish" / "config.fish").write_text(
        "function fish_prompt; echo -n 'READY> '; end; set -g fish_greeting\n"
        "set -g fish_autosuggestion_enabled 0\n"
    )


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_offers_next_words(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, kind: str
) -> None:
    put_node(redis_client, make_node(12, cluster_id=7, port=5566))
    (tmp_path / "nodes.csv").touch()
    (tmp_path / "somewhere").mkdir()
    with shell(kind, redis_url, tmp_path) as terminal:
        for keys, line in (
            ("clusterer set-\t", "clusterer set-status"),
            ("clusterer worker deli\t", "clusterer worker delivery"),
            ("clusterer list --log-f\tj\t", "clusterer list --log-format json"),
            ("clusterer import no\t", "clusterer import nodes.csv"),
            ("clusterer list --data-dir som\t", "clusterer list --data-dir somewhere"),
            ("clusterer set-status \t\t1 b\t", "clusterer set-status 7 12 1 bin"),
            ("clusterer watch 1\t--clus\t\t", "clusterer watch 12 --cluster 7"),
        ):
            terminal.completes(keys, line)


@pytest.mark.parametrize("kind", ["zsh", "fish"])
def test_completion_describes_nodes(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, kind: str
) -> None:
    for machine_id in (12, 13):
        put_node(redis_client, make_node(machine_id, port=5566))
    with shell(kind, redis_url, tmp_path) as terminal:
        terminal.type("clusterer watch \t\t")
        terminal.wait_for(r"bin:127\.0\.0\.13:5566 up Node 13")


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_without_redis_prints_nothing(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path, kind: str
) -> None:
    server = own_redis_server()
    server.stop()
    with shell(kind, server.url, tmp_path) as terminal:
        terminal.completes("clusterer watch \t8", "clusterer watch 8")
