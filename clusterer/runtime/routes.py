"""Which IP addresses are addresses of this host, by the kernel's routing (rtnetlink)."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import struct

log = logging.getLogger(__name__)

_RTM_GETROUTE = 26  # linux/rtnetlink.h, as are all that follow
_NLM_F_REQUEST = 1  # linux/netlink.h
_NLMSG_ERROR = 2  # linux/netlink.h
_RTA_DST = 1
_RTN_LOCAL = 2
_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_ROUTE = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, length of the destination in bits, four others, table's scope, type, flags."""
_TYPE_AT = _HEADER.size + 7
"""Where an answer has rtm_type."""
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_SIZE = 4096
_ANSWER_WITHIN_S = 1.0
"""The kernel answers at once: this only bounds what a fault there could cost."""
_IPV6_FREEBIND = 78  # linux/in6.h


def is_local(host: str) -> bool:
    """Whether ``host`` (an IP) is an address of this host (or network namespace) now.

    That is where the kernel delivers packets for it to this host, as ``ip route get`` says:
    127.0.0.0/8 and ``ip route add local`` included. An address that can merely be bound is not:
    with the sysctl ``ip_nonlocal_bind``, usual beside keepalived, every address can be.
    """
    family = family_of(host)
    try:
        destination = socket.inet_pton(family, host)
    except OSError:
        return False
    try:
        return _is_routed_here(family, destination)
    except AttributeError:  # this is not Linux
        return _can_be_bound(family, host)
    except OSError as error:
        _warn_of_sandbox(error.strerror or str(error))
        return _can_be_bound(family, host)


def bind_source(sock: socket.socket, host: str) -> None:
    """Bind a socket to ``host``, an address that `is_local`, and any port.

    IPv6 refuses addresses of ``ip route add local`` unless asked; raises `OSError`.
    """
    if sock.family == socket.AF_INET6:
        with contextlib.suppress(OSError):  # unknown here: then only interfaces have addresses
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    sock.bind((host, 0))


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family of an IP address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_routed_here(family: int, destination: bytes) -> bool:
    """Ask the kernel; raises `OSError` where it cannot be asked, `AttributeError` off Linux."""
    size = len(destination)
    route = _ROUTE.pack(family, 8 * size, 0, 0, 0, 0, 0, 0, 0)
    body = route + _ATTRIBUTE.pack(_ATTRIBUTE.size + size, _RTA_DST) + destination
    head = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_ANSWER_WITHIN_S)
        kernel.sendto(head + body, (0, 0))
        answer = kernel.recv(_ANSWER_SIZE)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:  # no route leads there
        return False
    return answer[_TYPE_AT] == _RTN_LOCAL


@functools.cache
def _warn_of_sandbox(reason: str) -> None:
    log.warning(
        "cannot ask the kernel which addresses are this host's: %s; an address that can be bound "
        "counts as one; allow AF_NETLINK (systemd: RestrictAddressFamilies=)",
        reason,
    )


def _can_be_bound(family: int, host: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
