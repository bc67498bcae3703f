"""`clusterer mi` over real FIFOs: the replies, and requests that must not end it."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from clusterer.errors import ClustererError
from clusterer.membership import State
from clusterer.mi.fifo_server import FifoServer
from clusterer.mi.listen_address import Access
from clusterer.mi.serve import Options, serve
from clusterer.provisioning.table import NewRow
from clusterer.runtime.stop import StopFlag
from clusterer.services import Context
from clusterer.services.admin.mi_commands import MiCommands
from tests.support.mi import EXCHANGES
from tests.support.mi_server import LIST, ctl, provision_two_nodes, serving, state
from tests.support.processes import EVENTUALLY_S, spawn, wait_until
from tests.support.provisioning import events, provision, sql
from tests.support.redis_server import RedisServer

SETTINGS = {"server_id": 1}


@pytest.fixture
def context(context: Context) -> Context:
    """The context of `tests.conftest`, with two nodes in table and Redis."""
    provision_two_nodes(context)
    return context


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def fifo(context: Context, tmp_path: Path) -> Iterator[Path]:
    with serving(context, Options(fifo=tmp_path / "fifo", reply_dir=tmp_path)):
        yield tmp_path / "fifo"


def write(fifo: Path, data: bytes) -> None:
    """Write as a client that waits for no reply."""
    descriptor = os.open(fifo, os.O_WRONLY)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def test_mi_fifo_request_of_opensipsctl_is_answered(
    context: Context, fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ctl(fifo, "clusterer_list") == LIST
    assert ctl(fifo, "clusterer_set_status", "1", "2", "0", "bin") == b"200 OK\n\n"
    (asked,) = (r for r in caplog.records if "command clusterer_set_status 1 2" in r.message)
    assert (vars(asked)["machine_id"], vars(asked)["url"]) == (2, "bin:127.0.0.2:5566")
    assert state(context) is State.DOWN
    assert events(context)[-1]["by"] == "operator root@sip1 (mi fifo)"
    assert ctl(fifo, "clusterer_reload") == b"200 OK\n\n"
    assert state(context) is State.UP
    assert ctl(fifo, "nosuch") == b"500 command 'nosuch' not available\n"
    assert ctl(fifo, "clusterer_set_status") == b"400 Too few or too many arguments\n\n"
    assert ctl(fifo, "clusterer_set_status", "1", "2", "7", "bin") == b"400 Bad parameter\n\n"


def test_mi_recorded_requests_get_recorded_replies(fifo: Path) -> None:
    path = fifo.parent / "reply"
    os.mkfifo(path)
    for name, request, reply in EXCHANGES:
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(path.read_bytes)
            write(fifo, request)
            assert answer.result(EVENTUALLY_S) == reply, name


@pytest.mark.parametrize("word", ["::", '1"', '"1', '"1"x', '""'])
def test_mi_malformed_parameter_gets_reply_of_2_2(context: Context, fifo: Path, word: str) -> None:
    reply = b"400 parse error in command 'clusterer_set_status'\n"
    assert ctl(fifo, "clusterer_set_status", "1", "2", word, "bin") == reply
    assert ctl(fifo, "clusterer_set_status", word) == reply
    assert ctl(fifo, "clusterer_set_status", "1", "2", "0", "hep_udp") == b"404 No such node\n\n"
    assert ctl(fifo, "clusterer_list ") == b"500 command 'clusterer_list ' not available\n"
    assert state(context) is State.UP
    assert ctl(fifo, "clusterer_list") == LIST


def test_mi_second_server_leaves_fifo_of_first(context: Context, fifo: Path) -> None:
    options, stop = Options(fifo=fifo, reply_dir=fifo.parent), StopFlag()
    with (
        pytest.raises(ClustererError, match=r"cannot make the FIFO .*: another process serves it"),
        closing(MiCommands(context, "operator root@sip1")) as commands,
    ):
        serve(commands, options, stop)
    stop.close()
    assert ctl(fifo, "clusterer_list") == LIST


def test_mi_unknown_or_own_row_is_no_such_node(context: Context, fifo: Path) -> None:
    for machine, protocol in (("1", "bin"), ("9", "bin"), ("2", "udp")):
        reply = ctl(fifo, "clusterer_set_status", "1", machine, "0", protocol)
        assert reply == b"404 No such node\n\n"
    assert state(context, 1) is State.UP


def test_mi_list_has_own_clusters_in_reverse_order(context: Context, fifo: Path) -> None:
    """2.2 puts clusters, protocols of a cluster and nodes of a protocol before the earlier ones."""
    provision(
        context,
        NewRow(1, 5, "bin:127.0.0.5:5566"),
        NewRow(2, 7, "bin:127.0.0.7:5566"),
        NewRow(1, 3, "udp:127.0.0.3:5060"),
        NewRow(3, 1, "bin:127.0.0.1:5566"),
        NewRow(3, 4, "bin:127.0.0.4:5566"),
        NewRow(4, 1, "bin:127.0.0.1:5566"),
        NewRow(1, 6, "bin:127.0.0.6:5566"),
    )
    assert ctl(fifo, "clusterer_reload") == b"200 OK\n\n"
    lines = ctl(fifo, "clusterer_list").decode().splitlines()
    assert [line.strip().partition(" DB_ID")[0] for line in lines[1:-1]] == [
        "Cluster:: 3",
        "Server:: 4",
        "Cluster:: 1",
        "Server:: 3",
        "Server:: 6",
        "Server:: 5",
        "Server:: 2",
    ]
    assert lines[2].endswith("Description=none")


def test_mi_reload_failed_says_so(context: Context, fifo: Path) -> None:
    sql(context, "DROP TABLE clusterer")
    assert ctl(fifo, "clusterer_reload") == b"500 Failed to reload\n\n"
    assert ctl(fifo, "clusterer_list") == LIST


def test_mi_many_clients_get_their_own_replies(fifo: Path) -> None:
    with ThreadPoolExecutor(30) as threads:
        lists = [threads.submit(ctl, fifo, "clusterer_list") for _ in range(30)]
        others = [threads.submit(ctl, fifo, f"nosuch{n}") for n in range(30)]
        assert {future.result() for future in lists} == {LIST}
        assert [future.result() for future in others] == [
            f"500 command 'nosuch{n}' not available\n".encode() for n in range(30)
        ]


def test_mi_client_that_never_reads_delays_no_other(
    fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        os.mkfifo(fifo.parent / f"deaf{number}")
        write(fifo, f":clusterer_list:deaf{number}\n\n".encode())
    os.mkfifo(fifo.parent / "opened")
    opened = os.open(fifo.parent / "opened", os.O_RDONLY | os.O_NONBLOCK)
    write(fifo, b":clusterer_list:opened\n\n")
    assert ctl(fifo, "clusterer_list") == LIST
    os.close(opened)
    wait_until(lambda: "no client has opened it within 2 s" in caplog.text)


@pytest.mark.parametrize("name", ["../stolen", "/tmp/stolen", "..", "a/b"])
def test_mi_reply_path_outside_directory_is_refused(
    context: Context, fifo: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    write(fifo, f":clusterer_set_status:{name}\n1\n2\n0\nbin\n\n".encode())
    wait_until(lambda: "must be a plain name" in caplog.text)
    assert ctl(fifo, "clusterer_list") == LIST, "the command was not carried out"
    assert not (fifo.parent.parent / "stolen").exists()


@pytest.mark.parametrize(
    ("kind", "why"),
    [("file", "is not a FIFO"), ("link", "is a symbolic link"), ("missing", "does not exist")],
)
def test_mi_reply_to_regular_file_is_refused(
    fifo: Path, caplog: pytest.LogCaptureFixture, kind: str, why: str
) -> None:
    victim, reply = fifo.parent / "victim", fifo.parent / "reply"
    victim.write_bytes(b"precious")
    if kind == "file":
        reply.write_bytes(b"precious")
    elif kind == "link":
        reply.symlink_to(victim)
    write(fifo, b":clusterer_list:reply\n\n")
    wait_until(lambda: f"reply FIFO {reply}: {why}" in caplog.text)
    assert ctl(fifo, "clusterer_list") == LIST
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("junk", [b"x" * 1_000_000, b"\n" * 100_000, b"\0\xff:::\n" * 1000])
def test_mi_invalid_bytes_do_not_end_server(
    fifo: Path, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write(fifo, junk)
    assert ctl(fifo, "clusterer_list") == LIST
    assert caplog.text.count("bad request") <= 5


def test_mi_cut_request_is_answered_and_dropped(fifo: Path) -> None:
    os.mkfifo(fifo.parent / "half")
    write(fifo, b":clusterer_set_status:half\n1\n2")
    reply = fifo.parent / "half"
    assert reply.read_bytes() == b"400 Bad request\n\n"
    assert ctl(fifo, "clusterer_list") == LIST


@pytest.mark.parametrize("instead", ["nothing", "another fifo"])
def test_mi_fifo_removed_is_made_again(
    fifo: Path, instead: str, caplog: pytest.LogCaptureFixture
) -> None:
    fifo.unlink()
    if instead == "another fifo":
        os.mkfifo(fifo)
    wait_until(lambda: "created again" in caplog.text)
    assert ctl(fifo, "clusterer_list") == LIST


def test_mi_fifo_path_occupied_is_logged_until_free(
    fifo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo.unlink()
    fifo.write_bytes(b"mine")
    wait_until(lambda: "the file exists and is not a FIFO" in caplog.text)
    assert fifo.read_bytes() == b"mine"
    fifo.unlink()
    wait_until(lambda: "created again" in caplog.text)
    assert ctl(fifo, "clusterer_list") == LIST


def test_mi_lasting_error_is_logged_once_a_minute(
    context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fifo"
    server = FifoServer(MiCommands(context, "test"), path, tmp_path, Access())
    path.unlink()
    path.write_bytes(b"mine")
    for half_seconds in range(240):
        server.look(half_seconds / 2)
    assert caplog.text.count("the file exists and is not a FIFO") == 2


def test_mi_fifo_has_mode_and_ends_with_server(context: Context, tmp_path: Path) -> None:
    fifo = tmp_path / "f"
    options = Options(fifo=fifo, reply_dir=tmp_path, access=Access(mode=0o622))
    with serving(context, options):
        wait_until(lambda: stat.S_IMODE(fifo.stat().st_mode) == 0o622)
        with (
            pytest.raises(ClustererError, match="another process serves it"),
            closing(MiCommands(context, "test")) as commands,
        ):
            serve(commands, options, StopFlag())
        assert ctl(fifo, "clusterer_list") == LIST
    assert not fifo.exists()
    os.mkfifo(fifo)  # left by a dead server
    with serving(context, options):
        assert ctl(fifo, "clusterer_list") == LIST


# -- the process -----------------------------------------------------------------------------------


def test_mi_command_serves_until_sigterm(context: Context, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    variables = {
        "CLUSTERER_REDIS_URL": context.settings.redis_url,
        "CLUSTERER_DATA_DIR": context.settings.data_dir,
        "CLUSTERER_SERVER_ID": "1",
    }
    args = ["-m", "clusterer", "mi", "--fifo", str(fifo), "--reply-dir", str(tmp_path)]
    with spawn(args, variables) as process:
        wait_until(fifo.exists)
        assert ctl(fifo, "clusterer_list") == LIST
        assert process.terminate(EVENTUALLY_S) == 0
        assert not fifo.exists()
        assert "Traceback" not in process.output()


def test_mi_running_command_ends_before_redis_is_closed(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path
) -> None:
    server, fifo = own_redis_server(), tmp_path / "fifo"
    variables = {"CLUSTERER_REDIS_URL": server.url, "CLUSTERER_SERVER_ID": "1"}
    args = ["-m", "clusterer", "mi", "--fifo", str(fifo), "--reply-dir", str(tmp_path)]
    with spawn(args, variables) as process:
        wait_until(fifo.exists)
        server.pause()
        write(fifo, b":clusterer_list:reply\n\n")
        process.wait_for_output("clusterer_list")
        process.popen.terminate()
        wait_until(lambda: not fifo.exists())
        server.resume()
        assert process.wait(EVENTUALLY_S) == 0
        assert "ERROR" not in process.output()
