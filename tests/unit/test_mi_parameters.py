"""Parameters in a FIFO as OpenSIPS 2.2 understands them, and its reply where it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.mi.commands import MiError
from clusterer.mi.fifo import Item, RequestDecoder, encode
from clusterer.mi.fifo_lines import BadRequest, Request
from clusterer.mi.parameters import MAX_QUOTED
from clusterer.mi.requests import command_from_words

HEAD = b":clusterer_set_status:r1\n"
PARSE_ERROR = b"400 parse error in command 'clusterer_set_status'\n"
LIST = Request("clusterer_list", "r2")


def feed(data: bytes, size: int = 0) -> list[Item]:
    decoder = RequestDecoder()
    chunks = [data[i : i + size] for i in range(0, len(data), size)] if size else [data]
    return [item for chunk in chunks for item in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"1", "1"),
        (b" \t1 \v", "1"),
        (b"cluster::1", "1"),
        (b" cluster :: 1 ", "1"),
        (b"::1", "1"),
        (b" :: 1", "1"),
        (b"a:b::1", "1"),
        (b"name::", ""),
        (b'name::""', ""),
        (b'"\\"', "\\"),
        (b"a::b::c", "b::c"),
        (b":1", None),
        (b'"1"', "1"),
        (b'name::"1" ', "1"),
        (b'" 1 "', " 1 "),
        (b'"::"', "::"),
        (b'"a::b"', "a::b"),
        (b'"a\\"b"', 'a"b'),
        (b'"a\\\\"b"', 'a\\"b'),
        (b'"a\nb"', "a\nb"),
        (b'name::"a\n"', "a\n"),
        (b'"\n1\n"', "\n1\n"),
    ],
)
@pytest.mark.parametrize("size", [0, 1])
def test_mi_parameter_is_read_as_by_2_2(line: bytes, word: str | None, size: int) -> None:
    found = feed(HEAD + line + b"\n2\n\n", size)
    if word is None:  # begins another request
        assert [type(item) for item in found] == [BadRequest, BadRequest]
    else:
        assert found == [Request("clusterer_set_status", "r1", (word, "2"))]


BAD_LINES = [
    b"::",
    b" :: ",
    b"::\t",
    b'""',
    b'name::""x',
    b'1"',
    b'1"2',
    b'1"2"',
    b'na"me::1',
    b'name::1"',
    b'"1"2',
    b'"1" "2"',
    b'"a\nb"c',
]
UNCLOSED = [b'"', b'"1', b'name::"1', b'"a\\"']


@pytest.mark.parametrize(
    ("line", "after"),
    [(line, after) for line in BAD_LINES for after in (b"", b'2\n"\n::\n')]
    + [(line, after) for line in UNCLOSED for after in (b"", b"2\n1::3\n")],
)
@pytest.mark.parametrize("before", [b"", b"1\n2\n"])
def test_mi_malformed_parameter_is_parse_error(before: bytes, line: bytes, after: bytes) -> None:
    found = feed(HEAD + before + line + b"\n" + after + b"\n:clusterer_list:r2\n")
    (bad, *_), last = found[:-1], found[-1]
    assert isinstance(bad, BadRequest)
    assert (bad.reply, encode(bad.error)) == ("r1", PARSE_ERROR)
    assert [item for item in found if getattr(item, "reply", "")] == [bad, last]
    assert last == LIST


def test_quoted_value_has_bounded_memory() -> None:
    line = b"x" * 1_000 + b"\n"
    (bad, *_) = feed(HEAD + b'"' + line * (MAX_QUOTED // 1_000 + 1))
    assert isinstance(bad, BadRequest)
    assert encode(bad.error) == PARSE_ERROR


def test_unknown_command_is_answered_before_its_parameters() -> None:
    found = feed(b':nosuch:r1\n::\n"\n1\n\n:clusterer_list:r2\n')
    assert found == [Request("nosuch", "r1"), LIST]


@pytest.mark.parametrize("name", ["clusterer_list ", " clusterer_list", "clusterer_set_status "])
def test_blank_beside_a_command_makes_another_name(name: str) -> None:
    (request,) = feed(f":{name}:r1\n".encode())
    assert isinstance(request, Request)
    with pytest.raises(MiError) as raised:
        command_from_words(request.command, request.words)
    assert encode(raised.value) == f"500 command '{name}' not available\n".encode()


def test_protocol_that_no_node_can_have_is_no_such_node() -> None:
    for protocol in ("hep_udp", "HEP_UDP"):
        with pytest.raises(MiError, match="404 No such node"):
            command_from_words("clusterer_set_status", ("1", "2", "0", protocol))


@pytest.mark.parametrize("number", ["4294967297", "4294967298", "2147483648", str(2**64 + 1)])
@pytest.mark.parametrize("place", [0, 1])
def test_number_that_would_wrap_is_refused(number: str, place: int) -> None:
    words = ["1", "2", "0", "bin"]
    words[place] = number
    with pytest.raises(MiError, match="400 Bad parameter"):
        command_from_words("clusterer_set_status", words)


@given(st.lists(st.text('":a \\\t', max_size=8).map(str.encode), max_size=6))
def test_any_parameters_are_followed_by_the_next_request(lines: list[bytes]) -> None:
    found = feed(HEAD + b"\n".join(lines) + b"\n\n\n:clusterer_list:r2\n")
    assert found[-1] == LIST
