"""Text formats inside fields: sockets, profiles, variables."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import WireError
from clusterer.payloads.notation import (
    Profile,
    SocketAddress,
    parse_pairs,
    parse_profiles,
    parse_socket,
)

SPECIAL = st.lists(st.sampled_from([b"\\", b"|", b"#", b"/", b"a", b"\n", b"\xff"])).map(b"".join)


@pytest.mark.parametrize(
    ("data", "parsed"),
    [
        (b"udp:127.0.0.1:5060", SocketAddress("udp", "127.0.0.1", 5060)),
        (b"tls:[2001:db8::1]:5061", SocketAddress("tls", "2001:db8::1", 5061)),
        (b"bin:host.example:65535", SocketAddress("bin", "host.example", 65_535)),
    ],
)
def test_parse_socket_prints_same_text(data: bytes, parsed: SocketAddress) -> None:
    assert parse_socket(data) == parsed
    assert str(parsed).encode() == data


def test_parse_socket_empty_is_none() -> None:
    assert parse_socket(b"") is None


def test_parse_socket_host_not_utf8_kept() -> None:
    socket = parse_socket(b"udp:\xff:1")
    assert socket is not None
    assert socket.host == "\udcff"


@pytest.mark.parametrize(
    "data",
    [b"udp", b"udp:h", b"udp:h:", b"udp:h:65536", b"udp:h:x", b"udp:a b:1", b"udp:[::1:5", b":h:1"],
)
def test_parse_socket_invalid_raises_wire_error(data: bytes) -> None:
    with pytest.raises(WireError, match="must be a socket"):
        parse_socket(data)


@pytest.mark.parametrize(
    ("data", "parsed"),
    [
        (b"", ()),
        (b"a#1|", ((b"a", b"1"),)),
        (b"a#|b#2|", ((b"a", b""), (b"b", b"2"))),
        (rb"a\|b\#c\\#x\|\#\\|", ((rb"a|b#c" + b"\\", rb"x|#" + b"\\"),)),
        (b"a#b#c|", ((b"a", b"b#c"),)),
        (b"#|", ((b"", b""),)),
        (b"a\n#\n|", ((b"a\n", b"\n"),)),
    ],
)
def test_parse_pairs_removes_backslashes(
    data: bytes, parsed: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert parse_pairs(data) == parsed


@pytest.mark.parametrize(
    ("data", "where"), [(b"a", 0), (b"a#b", 0), (b"a|", 0), (b"a#b|c", 4), (b"a#b\\|", 0)]
)
def test_parse_pairs_invalid_raises_with_offset(data: bytes, where: int) -> None:
    with pytest.raises(WireError, match=f"at {where} must begin with"):
        parse_pairs(data)


def format_pairs(pairs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    escaped = [[re.sub(rb"([\\|#])", rb"\\\1", part) for part in pair] for pair in pairs]
    return b"".join(b"%b#%b|" % (name, value) for name, value in escaped)


@given(st.lists(st.tuples(SPECIAL, SPECIAL)).map(tuple))
def test_parse_pairs_any_pairs_parse_equal(pairs: tuple[tuple[bytes, bytes], ...]) -> None:
    assert parse_pairs(format_pairs(pairs)) == pairs


@given(st.binary(max_size=50) | SPECIAL)
def test_parse_pairs_hostile_gives_pairs_or_wire_error(data: bytes) -> None:
    try:
        pairs = parse_pairs(data)
    except WireError:
        return
    assert parse_pairs(format_pairs(pairs)) == pairs


@pytest.mark.serial
@pytest.mark.parametrize("piece", [b"a", b"\\", b"\\\\", b"#", b"a#", b"\\a", b"|", b"#|"])
def test_parse_pairs_longest_field_takes_bounded_time(piece: bytes) -> None:
    """Quadratic time would take minutes, exponential time for ever."""
    data = piece * (65_000 // len(piece))
    begun = time.process_time()
    for text in (data, data + b"\\"):
        try:
            parse_profiles(text)
        except WireError as error:
            assert len(str(error)) < 200  # noqa: PT017  not every piece is refused
    assert time.process_time() - begun < 2


def test_parse_profiles_reads_sharing() -> None:
    profiles = (
        Profile(b"inbound", b"", b"b"),
        Profile(b"caller", b"si#pp", b"s"),
        Profile(b"local", b"x"),
    )
    data = rb"inbound/b#|caller/s#si\#pp|local#x|"
    assert parse_profiles(data) == profiles
