"""`clusterer mi` over HTTP and datagrams: JSON-RPC, as the tools of OpenSIPS 3 speak it."""

from __future__ import annotations

import json
import logging
import socket
import stat
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from clusterer.errors import ClustererError
from clusterer.membership import State
from clusterer.mi import http_server
from clusterer.mi.listen_address import Access, Place
from clusterer.mi.serve import Options, serve
from clusterer.runtime.stop import StopFlag
from clusterer.services import Context
from clusterer.services.admin.mi_commands import MiCommands
from tests.support.mi_server import LIST, ctl, provision_two_nodes, serving, state
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.provisioning import events, sql

SETTINGS = {"server_id": 1}


@pytest.fixture
def context(context: Context) -> Context:
    """The context of `tests.conftest`, with two nodes in table and Redis."""
    provision_two_nodes(context)
    return context


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


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
