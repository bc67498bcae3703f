"""Limits failed logins, per browser, per address and per name."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Iterator

from clusterer.store.console_users import MOST_NAME

WITHIN_S = 60.0
MOST_PER_BROWSER = 10
"""Failed logins of one browser that has logged in with the same name before, in `WITHIN_S`.

Only these count for such a browser: failed logins of others lock no operator out for ever."""
MOST_PER_ADDRESS = 10
"""Failed logins from one address (IPv6: from one /64 network) in `WITHIN_S`."""
MOST_PER_NAME = 20
"""Failed logins with one name, from all addresses, in `WITHIN_S`."""
MOST_KEYS = 10_000
"""Browsers, addresses and names that are remembered; the oldest are forgotten first."""

_IPV6_NETWORK = 64
_MOST = {"browser": MOST_PER_BROWSER, "address": MOST_PER_ADDRESS, "name": MOST_PER_NAME}

_Key = tuple[str, str]


class Attempts:
    """The failed logins of the last minute. For one event loop.

    ``browser`` is the id of a browser that has logged in with this name before, else empty.
    """

    def __init__(self) -> None:
        self._failed: OrderedDict[_Key, deque[float]] = OrderedDict()

    def wait_s(self, address: str, name: str, now: float, browser: str = "") -> float:
        """Return the seconds until a login may be tried; 0: now."""
        return max(self._wait_s(key, now) for key in _keys(address, name, browser))

    def failed(self, address: str, name: str, now: float, browser: str = "") -> None:
        """Note a failed login."""
        for key in _keys(address, name, browser):
            times = self._failed.setdefault(key, deque(maxlen=_MOST[key[0]]))
            times.append(now)
            self._failed.move_to_end(key)
        while len(self._failed) > MOST_KEYS:
            self._failed.popitem(last=False)

    def succeeded(self, address: str, name: str, browser: str = "") -> None:
        """Forget the attempt that was noted last: it was no failure."""
        for key in _keys(address, name, browser):
            if times := self._failed.get(key):
                times.pop()

    def _wait_s(self, key: _Key, now: float) -> float:
        times, most = self._failed.get(key, ()), _MOST[key[0]]
        recent = [at for at in times if now - at < WITHIN_S]
        return recent[-most] + WITHIN_S - now if len(recent) >= most else 0.0


def _keys(address: str, name: str, browser: str) -> Iterator[_Key]:
    if browser:
        yield "browser", browser
    else:
        yield "address", _network(address)
        yield "name", name[: MOST_NAME + 1]  # a longer text is the name of no user


def _network(address: str) -> str:
    """Return the network of an IPv6 address, whose addresses one host can use all."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[: MOST_NAME + 1]
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((int(found), _IPV6_NETWORK), strict=False))
