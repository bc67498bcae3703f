"""``proto:host:port``, the URL of a node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from clusterer.errors import InvalidArgument
from clusterer.ids import PROTO_BIN, require_protocol

DEFAULT_PORT = 5555
"""Where OpenSIPS 2.2 listens for BIN if its URL names no port."""

_URL = re.compile(
    r"(?P<protocol>[^:]*):(?://)?(?P<host>\[[^\[\]]*\]|[^:\[\]/]*)(?::(?P<port>[^:]*))?"
)
_BROADCAST = IPv4Address("255.255.255.255")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens."""

    protocol: str
    host: str
    """An IP address in its usual spelling, or a name if `is_name`."""
    port: int
    is_name: bool


def parse_address(url: str) -> Address:
    """Return the parts of ``url``; `InvalidArgument` says what is wrong with it.

    The host is an IPv4 address, an IPv6 address in brackets or a DNS name; BIN URLs may leave
    out the port.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidArgument(
            f"{url!r} is not protocol:host:port (IPv6 addresses stand in brackets)"
        )
    protocol = require_protocol(match["protocol"])
    host, is_name = _host(match["host"])
    return Address(protocol, host, _port(match["port"], protocol), is_name)


def name_in(url: str) -> str:
    """Return the DNS name in a node's URL, empty if it has an IP address or is no URL."""
    try:
        address = parse_address(url)
    except InvalidArgument:
        return ""
    return address.host if address.is_name else ""


def _host(text: str) -> tuple[str, bool]:
    if text.startswith("["):
        return _ipv6(text[1:-1]), False
    last = text.rstrip(".").rpartition(".")[2]
    if last.isdigit():
        return _ipv4(text), False
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidArgument(f"{text!r} is neither an IP address nor a host name")
    return text.lower(), True


def _ipv4(text: str) -> str:
    try:
        return _required(IPv4Address(text))
    except AddressValueError as error:
        raise InvalidArgument(f"{text!r} is not an IPv4 address: {error}") from None


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise InvalidArgument(f"{text!r} in brackets is not an IPv6 address") from None
    return _required(address.ipv4_mapped or address)


def why_unusable(address: IPv4Address | IPv6Address) -> str:
    """Return why no node can have this address; empty if one can."""
    if address.is_unspecified or address.is_multicast or address == _BROADCAST:
        return f"{address} is not the address of one host"
    if isinstance(address, IPv6Address) and (address.is_link_local or address.scope_id):
        return f"{address} means another host on each link: a node needs a global address"
    return ""


def _required(address: IPv4Address | IPv6Address) -> str:
    if reason := why_unusable(address):
        raise InvalidArgument(reason)
    return str(address)


def _port(text: str | None, protocol: str) -> int:
    if text is None:
        if protocol != PROTO_BIN:
            raise InvalidArgument(f"the port is missing (only {PROTO_BIN} has a default)")
        return DEFAULT_PORT
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise InvalidArgument(f"port {text!r} is not a number from 1 to 65535")
    return int(text)
