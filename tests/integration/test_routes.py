"""Addresses of this host: those that the kernel routes as local, whatever can be bound."""

from __future__ import annotations

import logging
import socket
import sys

import pytest

from clusterer.runtime import routes
from clusterer.runtime.routes import is_local
from tests.support.namespaces import run_alone
from tests.support.processes import EVENTUALLY_S

NONLOCAL_BIND = tuple(
    f"echo 1 >/proc/sys/net/{family}/ip_nonlocal_bind" for family in ("ipv4", "ipv6")
)
"""The sysctl of hosts with keepalived: every address can be bound."""

ANY_IP = ("ip route add local 198.51.100.0/24 dev lo", "ip route add local 2001:db8:5::/48 dev lo")

ASK = (
    "import sys; from clusterer.runtime.routes import is_local; print(*map(is_local, sys.argv[1:]))"
)


def asked(hosts: list[str], *prepare: str) -> list[str]:
    """Return which of ``hosts`` are local in a namespace made so."""
    said = run_alone(["-c", ASK, *hosts], *prepare).split()
    return [host for host, answer in zip(hosts, said, strict=True) if answer == "True"]


@pytest.mark.netns
@pytest.mark.parametrize("sysctl", [(), NONLOCAL_BIND], ids=["default", "nonlocal_bind"])
def test_is_local_any_bind_rule_follows_routes(sysctl: tuple[str, ...]) -> None:
    local = ["127.0.0.1", "127.8.9.10", "::1", "198.51.100.7", "2001:db8:5::9"]
    foreign = ["192.0.2.77", "8.8.8.8", "2001:db8:6::1", "198.51.101.1", "127.255.255.255"]
    assert asked(local + foreign, *ANY_IP, *sysctl) == local


@pytest.mark.netns
def test_is_local_routing_rule_before_local_table_decides() -> None:
    """Policy routing may send packets for an own address elsewhere, and takes others in."""
    rules = (
        "ip route add unreachable 127.0.5.0/24 table 99",
        "ip route add local 203.0.113.0/24 dev lo table 99",
        "ip rule add pref 5 lookup 99",
        "ip rule add pref 10 lookup local",
        "ip rule del pref 0",
    )
    hosts = ["127.0.5.1", "127.0.6.1", "203.0.113.5"]
    assert asked(hosts, *NONLOCAL_BIND, *rules) == ["127.0.6.1", "203.0.113.5"]


@pytest.mark.netns
@pytest.mark.parametrize("address", ["10.213.9.1/32", "2001:db8:9::1/128"])
def test_is_local_address_comes_and_goes_is_noticed(address: str) -> None:
    program = """
import subprocess, sys
from clusterer.runtime.routes import is_local
host = sys.argv[1].partition("/")[0]
print(is_local(host))
for word in "add", "del":
    subprocess.run(["ip", "addr", word, sys.argv[1], "dev", "lo"], check=True)
    print(is_local(host))
"""
    said = run_alone(["-c", program, address], *NONLOCAL_BIND)
    assert said.split() == ["False", "True", "False"]


@pytest.mark.netns
@pytest.mark.parametrize("source", ["198.51.100.7", "2001:db8:5::9"])
def test_link_from_routed_address_reaches_peer(source: str) -> None:
    """Addresses of `ip route add local` are local: connections can be made from them."""
    program = """
import select, socket, sys
from clusterer.delivery.link import Link
source = sys.argv[1]
family = socket.AF_INET6 if ":" in source else socket.AF_INET
with socket.create_server(("::1" if ":" in source else "127.0.0.1", 0), family=family) as server:
    link = Link(server.getsockname()[:2], source, 2.0)
    select.select([], [link], [], 2.0)
    link.finish_connecting()
    print(server.accept()[1][0])
"""
    assert run_alone(["-c", program, source], *ANY_IP).strip() == source


@pytest.mark.netns
@pytest.mark.parametrize(
    "test",
    [
        "test_delivery_sender_address_removed_fails_no_node",
        "test_worker_away_from_sender_leaves_log_alone",
    ],
)
def test_worker_with_nonlocal_bind_heeds_routes(test: str) -> None:
    """The sysctl changes no answer."""
    place = f"tests/integration/test_local_trouble.py::{test}"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", place]
    assert "1 passed" in run_alone(words, *NONLOCAL_BIND, timeout_s=4 * EVENTUALLY_S)


@pytest.mark.parametrize("text", ["", "localhost", "127.0.0.1:5566", "1.2.3", "::g", "fe80::1%lo"])
def test_is_local_without_ip_address_is_false(text: str) -> None:
    assert not is_local(text)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no netlink")
def test_is_local_netlink_forbidden_binds_and_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a unit whose RestrictAddressFamilies leaves AF_NETLINK out."""
    routes._warn_of_sandbox.cache_clear()
    monkeypatch.setattr(socket, "AF_NETLINK", 0x7FFF)  # the kernel knows no such family
    caplog.set_level(logging.WARNING)
    assert [is_local(host) for host in ("127.0.0.1", "192.0.2.77", "::1")] == [True, False, True]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "allow AF_NETLINK" in caplog.text
    routes._warn_of_sandbox.cache_clear()


def test_is_local_without_netlink_module_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.delattr(socket, "AF_NETLINK")
    assert is_local("127.0.0.1")
    assert not is_local("192.0.2.77")


@pytest.mark.netns
def test_listener_on_absent_address_warns() -> None:
    """The standby host of keepalived may listen in advance, and its log says so."""
    program = """
import asyncio, logging, sys
from clusterer.listener.ports import Ports
from clusterer.membership import Node
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.WARNING)
async def main():
    ports = Ports(lambda address: asyncio.Protocol())
    for host in sys.argv[1:]:
        await ports.follow({(host, 5566): Node(1, 1, 1, f"bin:{host}:5566", "bin", host, 5566)})
    ports.close()
asyncio.run(main())
"""
    lines = run_alone(["-c", program, "127.0.0.1", "192.0.2.77"], *NONLOCAL_BIND).splitlines()
    assert len(lines) == 1
    assert "WARNING listening on 192.0.2.77 port 5566, which is not an address" in lines[0]
