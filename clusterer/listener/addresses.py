"""IP addresses in one form, so that they can be compared as text."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def normalised_ip(text: str) -> str:
    """Return an IP address in its shortest form; IPv4 mapped into IPv6 becomes IPv4.

    A zone such as ``%eth0`` is dropped. Text that is no IP address is returned as it is.
    """
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)
