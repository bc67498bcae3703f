"""Text formats inside the fields of OpenSIPS 3.x."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import WireError
from clusterer.payloads import Profile, SocketAddress
from clusterer.payloads.opensips3.notation import (
    TaggedSocket,
    parse_any_socket,
    parse_profiles,
    parse_variables,
)


def escaped(text: bytes) -> bytes:
    for mark in (b"\\", b"|", b"#"):
        text = text.replace(mark, b"\\" + mark)
    return text


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=4))
def test_parse_variables_without_types_any_text(pairs: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(b"%s#%s|" % (escaped(name), escaped(value)) for name, value in pairs)
    assert list(parse_variables(data)) == pairs


@given(
    st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9) | st.integers()), max_size=4)
)
def test_parse_variables_with_types_any_value(pairs: list[tuple[bytes, bytes | int]]) -> None:
    pairs = [(n, v if isinstance(v, bytes) else v % 2**32 - 2**31) for n, v in pairs]
    data = b"".join(
        b"%s#1#%s|" % (escaped(name), escaped(value))
        if isinstance(value, bytes)
        else b"%s#2#%d|" % (escaped(name), value)
        for name, value in pairs
    )
    assert list(parse_variables(data)) == pairs


@given(st.binary(max_size=40))
def test_parse_hostile_text3_gives_value_or_wire_error(data: bytes) -> None:
    for parse in (parse_variables, parse_profiles, parse_any_socket):
        with suppress(WireError):
            parse(data)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"a", "b'a' at 0 must begin with name#value|"),
        (b"a#1#b|c", "b'c' at 6 must begin with"),
        (b"a#b#c|", "b'a#b#c|' at 0 must begin with"),
        (b"a#2#x|", "b'x' must be a number"),
        (b"a#2#|", "b'' must be a number"),
    ],
)
def test_parse_invalid_variables_names_the_place(data: bytes, fault: str) -> None:
    with pytest.raises(WireError) as raised:
        parse_variables(data)
    assert fault in str(raised.value)


def test_parse_profiles_of_both_notations() -> None:
    expected = (Profile(b"in", b"", b"b"), Profile(b"by", b"x", b"s"), Profile(b"own", b"y"))
    assert parse_profiles(b"in/b#|by/s#x|own#y|") == expected
    assert parse_profiles(b"in/b#1#|by/s#1#x|own#1#y|") == expected


@pytest.mark.parametrize(
    ("data", "socket"),
    [
        (b"", None),
        (b"udp:127.0.0.1:5060", SocketAddress("udp", "127.0.0.1", 5060)),
        (b"tls:[::1]:5061", SocketAddress("tls", "::1", 5061)),
        (b"udp:main", TaggedSocket("udp", "main")),
    ],
)
def test_parse_any_socket_address_or_tag(data: bytes, socket: object) -> None:
    parsed = parse_any_socket(data)
    assert parsed == socket
    assert str(parsed or "").encode() == data


@pytest.mark.parametrize("data", [b"udp", b":main", b"udp:", b"udp:a b", b"udp:h:70000"])
def test_parse_invalid_any_socket_raises(data: bytes) -> None:
    with pytest.raises(WireError, match="must be a socket such as"):
        parse_any_socket(data)


def test_parse_long_variables_in_linear_time() -> None:
    began = time.monotonic()
    for text in (b"\\a" * 30_000, b"a#" * 30_000, b"a#1#" * 15_000, b"#" * 60_000):
        with pytest.raises(WireError):
            parse_variables(text)
    assert time.monotonic() - began < 5
