"""JSON-RPC in a FIFO as OpenSIPS 3's clients write it: framed right, whatever comes around it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.mi.fifo import Item, RequestDecoder, RpcRequest
from clusterer.mi.fifo_lines import BadRequest, Request
from clusterer.mi.json_frame import MAX_JSON, BrokenJson, JsonFrame

BODY = b'{"jsonrpc": "2.0", "id": "1", "method": "clusterer_list", "params": {}}'
RPC = b":opensips_fifo_reply_7_1:" + BODY
WHOLE = RpcRequest("opensips_fifo_reply_7_1", BODY)
LINES = b":clusterer_set_status:r2\n1\n2\n0\nbin\n\n"
REQUEST = Request("clusterer_set_status", "r2", ("1", "2", "0", "bin"))


def feed(*chunks: bytes) -> list[Item]:
    decoder = RequestDecoder()
    return [item for chunk in chunks for item in decoder.feed(chunk)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("gap", [b"", b"\n", b" \n\n"])
def test_json_frames_of_both_kinds_follow_each_other(size: int, gap: bytes) -> None:
    stream = gap.join([RPC, RPC, LINES, RPC, LINES])
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert feed(*chunks) == [WHOLE, WHOLE, REQUEST, WHOLE, REQUEST]


def test_json_frames_request_ends_with_last_bracket() -> None:
    decoder = RequestDecoder()
    assert list(decoder.feed(RPC[:-1])) == []
    assert decoder.pending
    assert list(decoder.feed(RPC[-1:])) == [WHOLE]
    assert not decoder.pending


@pytest.mark.parametrize("body", [b'[{"a": 1}, {"b": [2]}]', b'{"a": "} \\" ] {"}', b"{\n\t}"])
def test_json_frames_batches_strings_and_line_feeds_are_read(body: bytes) -> None:
    assert feed(b"::" + body, b":r: " + body) == [RpcRequest("", body), RpcRequest("r", body)]


texts = st.text(alphabet='"\\{}[]:, \n\x00aé€\ud800', max_size=8)
scalars = st.sampled_from([None, True, False, 0, -7, 1.5e-9]) | texts
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(documents, max_size=3), st.booleans())
def test_json_frames_any_json_ends_at_its_end(document: object, escaped: bool) -> None:
    body = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    frame = JsonFrame()
    assert frame.feed(b"x" + body + b"}", 1) == 1 + len(body)
    assert bytes(frame.text) == body


CUT_JSON = [
    b":gone:{",
    b':gone:{"jsonrpc',
    b':gone:{"jsonrpc"',
    b':gone:{"jsonrpc":',
    b':gone:{"jsonrpc": "2.0", ',
    b':gone:{"jsonrpc": "2.0", "id": 7',
    b":gone:[true",
]
CUT_LINES = [b":clusterer_set_status:gone\n1\n", b":clusterer_set_status:gone\n1", b"garbage"]


@pytest.mark.parametrize(
    ("cut", "stream", "whole"),
    [(cut, RPC, WHOLE) for cut in CUT_JSON + CUT_LINES]
    + [(cut, LINES, REQUEST) for cut in CUT_JSON],
)
def test_json_frames_cut_request_leaves_next_request_whole(
    cut: bytes, stream: bytes, whole: Item
) -> None:
    first, *_, last = feed(cut + stream)
    assert isinstance(first, BadRequest)
    assert last == whole
    assert feed(cut, stream)[-1] == whole


def test_json_frames_invalid_json_is_answered_as_json() -> None:
    first, *_ = feed(b":r1:{'single': 1}\n")
    assert isinstance(first, BadRequest)
    assert (first.reply, first.is_json) == ("r1", True)


def test_json_frames_missing_end_is_given_up() -> None:
    decoder = RequestDecoder()
    assert list(decoder.feed(RPC[:-1])) == []
    (bad,) = decoder.give_up()
    assert isinstance(bad, BadRequest)
    assert (bad.reply, bad.is_json) == ("opensips_fifo_reply_7_1", True)
    assert list(decoder.give_up()) == []
    assert list(decoder.feed(RPC)) == [WHOLE]


def test_json_frames_unfinished_head_is_unfinished_line() -> None:
    decoder = RequestDecoder()
    assert list(decoder.feed(b":opensips_fifo_re")) == []
    assert decoder.pending
    (bad,) = decoder.give_up()
    assert isinstance(bad, BadRequest)
    assert "':opensips_fifo_re'" in bad.why
    assert not decoder.pending


def test_json_frames_memory_is_bounded() -> None:
    decoder = RequestDecoder()
    items = [item for _ in range(40) for item in decoder.feed(b':r:["' + b"a" * 10_000)]
    assert all(isinstance(item, BadRequest) for item in items)
    frame = JsonFrame()
    with pytest.raises(BrokenJson, match="more than 65536 bytes"):
        frame.feed(b'["' + b"a" * MAX_JSON, 0)
    assert len(frame.text) == MAX_JSON


@pytest.mark.parametrize("unit", [b":a:{", b':a:{"', b":a:[\x01", b":{" * 2, b'{":a:{":a:'])
def test_json_frames_hostile_bytes_end_before_next_request(unit: bytes) -> None:
    decoder = RequestDecoder()
    for _ in range(3):
        for _ in decoder.feed(unit * (65_536 // len(unit))):
            pass
    assert list(decoder.feed(b"\x01\n" + RPC))[-1] == WHOLE
