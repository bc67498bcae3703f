"""`clusterer mi` over real FIFOs and sockets: the replies, and requests that must not end it."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from clusterer.errors import ClustererError
from clusterer.membership import State
from clusterer.mi import http_server
from clusterer.mi.fifo_server import FifoServer
from clusterer.mi.listen_address import Access, Place
from clusterer.mi.serve import Options, serve
from clusterer.provisioning.table import NewRow
from clusterer.runtime.stop import StopFlag
from clusterer.services import Context
from clusterer.services.admin.mi_commands import MiCommands
from clusterer.services.table import reload
from tests.support.mi import EXCHANGES
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, child_environment, spawn, wait_until
from tests.support.provisioning import KEY, NODE_A, events, provision, sql
from tests.support.redis_server import RedisServer

LIST = (
    b"200 OK\nCluster:: 1\n\tServer:: 2 DB_ID=2 URL=bin:127.0.0.2:5566 State=1 "
    b"Last_failed_attempt=0 Max_failed_attempts=3 no_tries=0 Seconds_until_enabling=5 "
    b"Description=Node B\n\n"
)
CLIENT = r"""
name="opensips_receiver_$$"; path="$DIR/$name"
mkfifo "$path" && chmod a+w "$path"
CMD=":$1:$name\n"; shift
while [ -n "$1" ]; do CMD="${CMD}${1}\n"; shift; done
CMD="${CMD}\n"
cat < "$path" &
printf "$CMD" > "$FIFO"
wait
rm "$path"
"""
"""What opensipsctl does for `opensipsctl fifo COMMAND PARAMETER...`."""


SETTINGS = {"server_id": 1}


@pytest.fixture
def context(context: Context) -> Context:
    """The context of `tests.conftest`, with two nodes in table and Redis."""
    provision(context, NODE_A, NewRow(1, 2, "bin:127.0.0.2:5566", duration=5, description="Node B"))
    reload.run(context)
    return context


@contextmanager
def serving(context: Context, options: Options) -> Iterator[None]:
    stop = StopFlag()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with closing(MiCommands(context, "operator root@sip1")) as commands:
                serve(commands, options, stop)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    thread = threading.Thread(target=work, name="test-mi")
    thread.start()
    try:
        wait_until(lambda: failed or _reachable(options), message="the server")
        yield
        assert thread.is_alive(), failed
    finally:
        stop.set()
        thread.join(EVENTUALLY_S)
        stop.close()
        assert not thread.is_alive()
        assert not failed, failed


def _reachable(options: Options) -> bool:
    if isinstance(options.http, Place):
        with socket.socket() as probe:
            return probe.connect_ex((options.http.host, options.http.port)) == 0
    if options.fifo is not None:  # its mode is set last, once it is open
        made = options.fifo.exists()
        return made and stat.S_IMODE(options.fifo.stat().st_mode) == options.access.mode
    place = options.http or options.datagram
    return isinstance(place, Path) and place.exists()


@pytest.fixture
def fifo(context: Context, tmp_path: Path) -> Iterator[Path]:
    with serving(context, Options(fifo=tmp_path / "fifo", reply_dir=tmp_path)):
        yield tmp_path / "fifo"


def ctl(fifo: Path, *words: str) -> bytes:
    """Run the shell client; its reply."""
    environment = child_environment({"FIFO": str(fifo), "DIR": str(fifo.parent)})
    done = subprocess.run(
        ["/bin/sh", "-c", CLIENT, "opensipsctl", *words],
        env=environment,
        capture_output=True,
        timeout=EVENTUALLY_S,
        check=True,
    )
    return done.stdout


def write(fifo: Path, data: bytes) -> None:
    """Write as a client that waits for no reply."""
    descriptor = os.open(fifo, os.O_WRONLY)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def state(context: Context, machine_id: int = 2) -> State:
    return context.nodes.view(KEY).nodes[machine_id].state


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


# -- JSON-RPC --------------------------------------------------------------------------------------


def call(method: str, params: object = None, **more: object) -> bytes:
    document = {"jsonrpc": "2.0", "id": "1", "method": method, "params": params or {}}
    return json.dumps(document | more).encode()


@pytest.fixture
def http(context: Context) -> Iterator[Place]:
    place = Place("127.0.0.1", free_port())
    with serving(context, Options(http=place)):
        yield place


def post(place: Place, body: bytes, path: str = "/mi") -> Any:
    """POST as OpenSIPS 3's tools do."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{place}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=EVENTUALLY_S) as response:  # noqa: S310 - http only
        raw = response.read()
    return json.loads(raw) if raw else None


def raw(place: Place, data: bytes, timeout_s: float = EVENTUALLY_S) -> bytes:
    with socket.create_connection((place.host, place.port), timeout_s) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def test_mi_http_serves_the_three_commands(context: Context, http: Place) -> None:
    found = post(http, call("clusterer_list"))
    assert found["result"]["Clusters"][0]["Nodes"][0]["url"] == "bin:127.0.0.2:5566"
    params = {"cluster_id": 1, "machine_id": 2, "status": 0, "protocol": "bin"}
    assert post(http, call("clusterer_set_status", params))["result"] == "OK"
    assert state(context) is State.DOWN
    assert events(context)[-1]["by"] == "operator root@sip1 (mi http 127.0.0.1)"
    assert post(http, call("clusterer_reload"))["result"] == "OK"
    missing = post(http, call("clusterer_set_status", [1, 9, 0, "bin"]))["error"]
    assert (missing["code"], missing["message"]) == (404, "No such node")
    sql(context, "DROP TABLE clusterer")
    failed = post(http, call("clusterer_reload"))["error"]
    assert failed["message"] == "Failed to reload"
    assert "there is no table" in failed["data"]


def test_mi_http_batch_and_notification_are_answered(context: Context, http: Place) -> None:
    down = json.dumps(
        {"jsonrpc": "2.0", "method": "clusterer_set_status", "params": [1, 2, 0, "bin"]}
    ).encode()
    assert post(http, down) is None
    assert state(context) is State.DOWN
    answers = post(http, b"[" + call("clusterer_list") + b"," + down + b"]")
    assert len(answers) == 1


HEAD = b"POST /mi HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /mi HTTP/1.1\r\n\r\n", 405),
        (b"POST /other HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (HEAD + b"\r\n", 411),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", 411),
        (HEAD + b"Content-Length: x\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 65537\r\n\r\n", 413),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (HEAD + b"Origin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}", 403),
        (b"\x16\x03\x01 nonsense\r\n\r\n", 400),
        (HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n", 431),
    ],
)
def test_mi_http_other_request_is_refused(http: Place, request_: bytes, status: int) -> None:
    answer = raw(http, request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert post(http, call("clusterer_list"))["result"]


def test_mi_http_more_clients_than_places_are_refused(
    http: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_READ_S", 2 * EVENTUALLY_S)
    with ExitStack() as stack:

        def connect() -> None:
            stack.enter_context(socket.create_connection((http.host, http.port), EVENTUALLY_S))

        def is_full() -> bool:
            if raw(http, HEAD + b"Content-Length: 2\r\n\r\n{}").startswith(b"HTTP/1.1 503 "):
                return True
            connect()  # the kernel may have dropped one of the others: its queue is short
            return False

        for _ in range(100):
            connect()
        wait_until(is_full, message="all places are taken")
    assert wait_until(lambda: _served(http))


def test_mi_http_slow_client_is_answered_in_time(
    http: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_READ_S", 0.5)
    assert raw(http, HEAD).startswith(b"HTTP/1.1 408 ")


def _served(http: Place) -> bool:
    try:
        return bool(post(http, call("clusterer_list")))
    except OSError:
        return False


def test_mi_http_over_unix_socket_answers(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "mi.sock"
    options = Options(http=path, access=Access(mode=0o600))
    with serving(context, options):
        wait_until(lambda: stat.S_IMODE(path.stat().st_mode) == 0o600)
        body = call("clusterer_list")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert b"200 OK" in connection.recv(65536)
        with (
            pytest.raises(ClustererError, match="another process listens"),
            closing(MiCommands(context, "test")) as commands,
        ):
            serve(commands, options, StopFlag())
    assert not path.exists()


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_mi_datagram_is_answered(context: Context, tmp_path: Path, kind: str) -> None:
    address: Place | Path = Place("127.0.0.1", free_port()) if kind == "udp" else tmp_path / "d"
    target = (address.host, address.port) if isinstance(address, Place) else str(address)
    # The FIFO too: it shows that the server is there.
    options = Options(fifo=tmp_path / "fifo", reply_dir=tmp_path, datagram=address)
    family = socket.AF_INET if kind == "udp" else socket.AF_UNIX
    with serving(context, options), socket.socket(family, socket.SOCK_DGRAM) as client:
        assert ctl(tmp_path / "fifo", "clusterer_list") == LIST
        client.bind(("127.0.0.1", 0) if kind == "udp" else str(tmp_path / "client"))
        client.settimeout(EVENTUALLY_S)
        client.sendto(b"junk", target)
        assert json.loads(client.recv(65536))["error"]["code"] == -32700
        client.sendto(call("clusterer_reload"), target)
        assert json.loads(client.recv(65536))["result"] == "OK"


def test_mi_datagram_client_not_reading_delays_no_other(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "d"
    kind = socket.AF_UNIX, socket.SOCK_DGRAM
    options = Options(reply_dir=tmp_path, datagram=path)
    with serving(context, options), socket.socket(*kind) as deaf, socket.socket(*kind) as client:
        deaf.bind(str(tmp_path / "deaf"))
        client.bind(str(tmp_path / "client"))
        for one in (deaf, client):
            one.settimeout(EVENTUALLY_S)
        for _ in range(600):  # more than its queue holds (net.unix.max_dgram_qlen)
            deaf.sendto(b"junk", str(path))
        client.sendto(call("clusterer_list"), str(path))
        assert json.loads(client.recv(65536))["result"]


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


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
