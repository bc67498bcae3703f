"""The management interface's protocols, held against what a real OpenSIPS 2.2.8 answered."""

from __future__ import annotations

import json

import pytest

from clusterer.mi import jsonrpc
from clusterer.mi.commands import (
    Listed,
    ListedCluster,
    ListedNode,
    ListNodes,
    MiError,
    Ok,
    Result,
    SetStatus,
)
from clusterer.mi.fifo import Item, RequestDecoder, encode
from clusterer.mi.fifo_lines import MAX_LINE, BadRequest, Request
from clusterer.mi.requests import command_from_words
from tests.support.mi import EXCHANGES

NODE_B = ListedNode(2, 2, "bin:127.0.0.2:5566", 1, 0, 3, 0, 5, "Node B")
LISTED = Listed((ListedCluster(1, (NODE_B,)),))


def carry_out(request: Request) -> Result | MiError:
    try:
        command = command_from_words(request.command, request.words)
    except MiError as error:
        return error
    return LISTED if isinstance(command, ListNodes) else Ok()


def test_mi_vectors_are_complete() -> None:
    assert len(EXCHANGES) == 9
    assert EXCHANGES[1][2].count(b"\t") == 1


@pytest.mark.parametrize(("name", "request_", "reply"), EXCHANGES, ids=[e[0] for e in EXCHANGES])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_mi_each_recorded_request_gets_recorded_reply(
    name: str, request_: bytes, reply: bytes, size: int
) -> None:
    decoder = RequestDecoder()
    chunks = [request_[i : i + size] for i in range(0, len(request_), size)]
    found = [item for chunk in chunks for item in decoder.feed(chunk)]
    (request,) = found
    assert isinstance(request, Request)
    assert request.reply == "reply"
    assert encode(carry_out(request)) == reply
    assert not decoder.pending


def test_mi_recorded_requests_in_one_stream_are_parsed() -> None:
    stream = b"".join(request for _, request, _ in EXCHANGES)
    found = list(RequestDecoder().feed(stream))
    assert [encode(carry_out(item)) for item in found if isinstance(item, Request)] == [
        reply for *_, reply in EXCHANGES
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("1", "2", "0", "bin"), SetStatus(1, 2, 0, "bin")),
        (("1", "2", "1", "BIN"), SetStatus(1, 2, 1, "bin")),
        (("1",), "400 Too few or too many arguments"),
        (("1", "2"), "400 Too few or too many arguments"),
        (("1", "2", "1"), "400 Bad parameter"),
        (("1", "2", "1", "bin", "5"), "400 Too few or too many arguments"),
        (("0", "2", "1", "bin"), "400 Bad parameter"),
        (("-1", "2", "1", "bin"), "400 Bad parameter"),
        (("1", "2147483648", "1", "bin"), "400 Bad parameter"),
        (("1", "9" * 500, "1", "bin"), "400 Bad parameter"),
        (("1", "\u0662", "1", "bin"), "400 Bad parameter"),
        (("1", "2", "2", "bin"), "400 Bad parameter"),
    ],
)
def test_mi_set_status_parameters_are_checked(words: tuple[str, ...], expected: object) -> None:
    try:
        found: object = command_from_words("clusterer_set_status", words)
    except MiError as error:
        found = str(error)
    assert found == expected


def test_mi_errors_and_missing_description_have_texts_of_2_2() -> None:
    assert encode(MiError(500, "Failed to reload")) == b"500 Failed to reload\n\n"
    assert encode(MiError(404, "No such node")) == b"404 No such node\n\n"
    two = Listed((ListedCluster(1, ()), ListedCluster(2, ())))
    assert encode(two) == b"200 OK\nCluster:: 1\nCluster:: 2\n\n"
    odd = ListedNode(3, 3, "bin:h:1", 1, 0, 3, 0, 5, "two\nlines\x1b")
    last = encode(Listed((ListedCluster(1, (odd,)),))).split(b"\n")[2]
    assert last.endswith(b"Description=two lines ")


def feed(*chunks: bytes) -> list[Item]:
    decoder = RequestDecoder()
    return [item for chunk in chunks for item in decoder.feed(chunk)]


HEAD = b":clusterer_set_status:r1\n"
WHOLE = HEAD + b"1\n2\n0\nbin\n\n"
GOOD = Request("clusterer_set_status", "r1", ("1", "2", "0", "bin"))


def test_mi_command_without_parameters_needs_no_empty_line() -> None:
    assert feed(b":clusterer_list:a\n:clusterer_reload:b\n") == [
        Request("clusterer_list", "a"),
        Request("clusterer_reload", "b"),
    ]


@pytest.mark.parametrize(
    "form", [b"1\r\n2\r\n0\r\nbin\r\n\r\n", b'cluster::1\n2\n"0"\n "bin" \n\n']
)
def test_mi_parameters_of_other_clients_are_read(form: bytes) -> None:
    assert feed(HEAD + form) == [GOOD]


@pytest.mark.parametrize(
    ("junk", "why"),
    [
        (b"garbage\nmore\n", "expected :command"),
        (b":\n", "expected :command"),
        (b"\xff\xfe\x00\n", "expected :command"),
        (b"x" * 10_000 + b"\n", "more than 1024 bytes"),
        (b":" + b"y" * 10_000 + b":r\n", "more than 1024 bytes"),
        (b":clusterer_set_status:r9\n1\n", "another request began"),
        (b":clusterer_set_status:r9\n" + b"1\n" * 40, "more than 32"),
        (b":clusterer_set_status:r9\n" + b"1" * 2000 + b"\n", "more than 1024 bytes"),
    ],
)
def test_mi_request_after_invalid_bytes_is_whole(junk: bytes, why: str) -> None:
    first, *_, last = feed(junk + WHOLE)
    assert isinstance(first, BadRequest)
    assert why in first.why
    assert last == GOOD


def test_mi_request_after_unfinished_line_is_found() -> None:
    for size in (5, MAX_LINE + 5, 300_000):
        assert feed(b"x" * size, WHOLE)[-1] == GOOD


def test_mi_memory_is_bounded_by_a_line() -> None:
    decoder = RequestDecoder()
    for _ in range(100):
        assert list(decoder.feed(b"z" * 65_536)) == []
    assert len(decoder._held) + len(decoder._lines._line) <= 2 * MAX_LINE


def test_mi_unfinished_request_is_given_up() -> None:
    decoder = RequestDecoder()
    assert list(decoder.feed(HEAD + b"1\n2")) == []
    assert decoder.pending
    (bad,) = decoder.give_up()
    assert isinstance(bad, BadRequest)
    assert (bad.reply, bad.error.code) == ("r1", 400)
    assert list(decoder.give_up()) == []
    assert list(decoder.feed(WHOLE)) == [GOOD]


# -- JSON-RPC --------------------------------------------------------------------------------------


def rpc(document: object) -> object:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    message = jsonrpc.parse(body)
    outcomes = [
        (LISTED if isinstance(call.command, ListNodes) else Ok())
        if isinstance(call, jsonrpc.Call)
        else None
        for call in message.calls
    ]
    answer = jsonrpc.encode(message, outcomes)
    return json.loads(answer) if answer else None


def call(method: object, params: object = None, **more: object) -> dict[str, object]:
    head: dict[str, object] = {"jsonrpc": "2.0", "id": "7", "method": method}
    return head | ({} if params is None else {"params": params}) | more


def code_of(answer: object) -> object:
    assert isinstance(answer, dict)
    return answer["error"]["code"]


def test_mi_three_methods_are_answered() -> None:
    by_name = {"cluster_id": 1, "machine_id": "2", "status": 0, "protocol": "bin"}
    assert rpc(call("clusterer_reload", {})) == {"jsonrpc": "2.0", "id": "7", "result": "OK"}
    for params in (by_name, [1, 2, 0, "bin"], ["1", "2", "0", "bin"]):
        (made,) = jsonrpc.parse(json.dumps(call("clusterer_set_status", params)).encode()).calls
        assert made == jsonrpc.Call(SetStatus(1, 2, 0, "bin"), "7", wants_answer=True)
    answer = rpc(call("clusterer_list"))
    assert isinstance(answer, dict)
    (cluster,) = answer["result"]["Clusters"]
    assert cluster["cluster_id"] == 1
    assert (cluster["Nodes"][0]["node_id"], cluster["Nodes"][0]["description"]) == (2, "Node B")


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b'{"jsonrpc": "2.0", "id": ' + b"9" * 5000 + b"}", -32700),
        (b'{"jsonrpc": "2.0", "id": NaN}', -32700),
        (3, -32600),
        ([], -32600),
        ([call("clusterer_list")] * 101, -32600),
        (call("clusterer_list", jsonrpc="1.0"), -32600),
        (call(5), -32600),
        (call("clusterer_list", "x"), -32600),
        (call("clusterer_list", id={}), -32600),
        (call("clusterer_list", id=True), -32600),
        (b'{"jsonrpc": "2.0", "id": 1e999, "method": "clusterer_list"}', -32600),
        (call("nosuch"), -32601),
        (call("clusterer_list", [1]), -32602),
        (call("clusterer_set_status", {"cluster_id": 1}), -32602),
        (call("clusterer_set_status", [1, 2, True, "bin"]), -32602),
        (call("clusterer_set_status", [1, 2, 7, "bin"]), -32602),
        (call("clusterer_set_status", [10**30, 2, 1, "bin"]), -32602),
        (call("clusterer_set_status", [1, 2, 1, "foo"]), -32602),
    ],
)
def test_mi_standard_error_codes_are_used(document: object, code: int) -> None:
    assert code_of(rpc(document)) == code


def test_mi_batch_answers_calls_but_no_notifications() -> None:
    note = {"jsonrpc": "2.0", "method": "clusterer_reload"}
    bad_note = {"jsonrpc": "2.0", "method": "nosuch"}
    answers = rpc([call("clusterer_list", id=1), note, 5, bad_note, call("nosuch", id=2)])
    assert isinstance(answers, list)
    assert [answer["id"] for answer in answers] == [1, None, 2]
    assert rpc(note) is None
    assert rpc([note, bad_note]) is None
    assert isinstance(jsonrpc.parse(json.dumps(note).encode()).calls[0], jsonrpc.Call)


def test_mi_error_of_command_keeps_code_and_detail() -> None:
    message = jsonrpc.parse(json.dumps(call("clusterer_reload")).encode())
    answer = jsonrpc.encode(message, [MiError(500, "Failed to reload", "no table")])
    wanted = {"code": 500, "message": "Failed to reload", "data": "no table"}
    assert json.loads(answer)["error"] == wanted
