"""Values of the url column."""

from __future__ import annotations

import pytest

from clusterer.errors import InvalidArgument
from clusterer.provisioning.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("bin:192.168.0.5:5566", Address("bin", "192.168.0.5", 5566, False)),
        ("BIN:192.168.0.5:5566", Address("bin", "192.168.0.5", 5566, False)),
        ("bin:192.168.0.5", Address("bin", "192.168.0.5", 5555, False)),
        ("bin:[2001:DB8::1]:1", Address("bin", "2001:db8::1", 1, False)),
        ("bin:[::1]", Address("bin", "::1", 5555, False)),
        ("bin:[::ffff:10.0.0.1]:65535", Address("bin", "10.0.0.1", 65535, False)),
        ("bin:Sip1.example.org:5566", Address("bin", "sip1.example.org", 5566, True)),
        ("bin:node_b:5566", Address("bin", "node_b", 5566, True)),
        ("bin:4you:5566", Address("bin", "4you", 5566, True)),
        ("udp:10.0.0.1:5060", Address("udp", "10.0.0.1", 5060, False)),
    ],
)
def test_address_valid_urls_are_read(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "protocol:host:port"),
        ("192.168.0.5", "protocol:host:port"),
        ("192.168.0.5:5566", "protocol must be a name"),
        (":10.0.0.1:5566", "protocol must be a name"),
        ("bin:", "host name"),
        ("bin::5566", "host name"),
        ("bin:10.0.0.1:", "port ''"),
        ("bin:10.0.0.1:0", "port '0'"),
        ("bin:10.0.0.1:65536", "port '65536'"),
        ("bin:10.0.0.1:-1", "port '-1'"),
        ("bin:10.0.0.1:5566x", "port '5566x'"),
        ("bin:10.0.0.1:٣", "port"),
        ("bin:10.0.0.1:5566:1", "protocol:host:port"),
        ("bin:10.0.0.256:5566", "not an IPv4 address"),
        ("bin:10.1:5566", "not an IPv4 address"),
        ("bin:010.0.0.1:5566", "not an IPv4 address"),
        ("bin:0.0.0.0:5566", "not the address of one host"),
        ("bin:[::]:5566", "not the address of one host"),
        ("bin:224.0.0.1:5566", "not the address of one host"),
        ("bin:255.255.255.255:5566", "not the address of one host"),
        ("bin:[ff02::1]:5566", "not the address of one host"),
        ("bin:[::ffff:255.255.255.255]:5566", "not the address of one host"),
        ("bin:[fe80::1]:5566", "another host on each link"),
        ("bin:[fe80::1%eth0]:5566", "another host on each link"),
        ("bin:[::1%eth0 ]:5566", "another host on each link"),
        ("bin:[10.0.0.1]:5566", "not an IPv6 address"),
        ("bin:[]:5566", "not an IPv6 address"),
        ("bin:2001:db8::1:5566", "brackets"),
        ("bin:ho st:5566", "host name"),
        ("bin:-host:5566", "host name"),
        ("bin:a..b:5566", "host name"),
        (f"bin:{'a' * 64}:5566", "host name"),
        ("bin:host/path:5566", "protocol:host:port"),
        ("udp:10.0.0.1", "the port is missing"),
    ],
)
def test_address_invalid_urls_are_refused_with_reason(url: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        parse_address(url)
