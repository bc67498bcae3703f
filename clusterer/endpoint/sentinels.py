"""The sentinels of a service: which server they call the master."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from clusterer.endpoint.sentinel_url import SentinelPlace
from clusterer.errors import with_causes
from clusterer.runtime import forks

ANSWER_S = 0.3
"""Longest wait for one sentinel to accept a connection, and again for each answer."""

LOOK_S = 0.6
"""Time after which no other sentinel is asked."""

AVOID_S = 3.0
"""Time for which a sentinel that failed is asked only if no other sentinel answers."""


_REFUSALS = (redis.AuthenticationError, redis.exceptions.NoPermissionError)


class SentinelFailure(OSError):
    """No sentinel says which server is the master; base of the reasons. The text begins with a
    capital letter, as the kernel's texts do.
    """

    def __init__(self, text: str) -> None:
        super().__init__(errno.EHOSTUNREACH, text)


class NoSentinel(SentinelFailure):
    """No sentinel can be reached."""


class NotASentinel(SentinelFailure):
    """The server there does not know Sentinel's commands."""


class UnknownService(SentinelFailure):
    """The sentinels know no master of that name."""


class SentinelRefused(SentinelFailure):
    """The sentinels want another user or password, or allow less."""


@dataclass(frozen=True, slots=True)
class Master:
    """The master of a service as a sentinel sees it."""

    host: str
    port: int
    epoch: int
    """Grows with each failover."""


class _Sentinel:
    """One sentinel, and the connection to it."""

    def __init__(self, name: str, url: str) -> None:
        options: dict[str, Any] = {
            "socket_timeout": ANSWER_S,
            "socket_connect_timeout": ANSWER_S,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        } | parse_url(url)  # type: ignore[no-untyped-call]
        self.name = name
        self.failed_at = -AVOID_S
        self._connection = options.pop("connection_class", redis.Connection)(**options)

    def master(self, service: str) -> Master:
        """Return the master. Raises redis-py's errors, `ValueError` for a reply of no sentinel."""
        try:
            # In this order: during a failover a sentinel names the new master before its epoch
            # is final, and never the old one with a new epoch.
            epoch = self._epoch(service)
            found = self._ask("GET-MASTER-ADDR-BY-NAME", service)
        except (redis.ConnectionError, redis.TimeoutError):
            self._connection.disconnect()
            raise
        if found is None:
            raise redis.ResponseError("ERR No such master with that name")
        host, port = found
        return Master(host.decode(), int(port), epoch)

    def services(self) -> list[str]:
        """Return the names of all masters that the sentinel watches."""
        return sorted(_fields(each).get("name", "?") for each in self._ask("MASTERS"))

    def _epoch(self, service: str) -> int:
        try:
            return int(_fields(self._ask("MASTER", service)).get("config-epoch", "0"))
        except redis.exceptions.NoPermissionError:
            return 0

    def _ask(self, *words: str) -> Any:
        connection = self._connection
        connection.connect()
        connection.send_command("SENTINEL", *words)
        return connection.read_response()


def _fields(flat: list[bytes]) -> dict[str, str]:
    texts = [part.decode("utf-8", "replace") for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


class Sentinels:
    """All sentinels of a service. Safe to share between threads, and over forks."""

    def __init__(self, place: SentinelPlace) -> None:
        self._place = place
        self._latest: Master | None = None
        self.renew_in_child()
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave lock and connections to the parent."""
        self._lock = threading.Lock()
        self._members = [_Sentinel(*each) for each in self._place.sentinels.items()]

    @property
    def service(self) -> str:
        """The name of the service."""
        return self._place.service

    def master(self) -> Master:
        """Ask the sentinels; return the master of the highest epoch among their answers.

        A sentinel that was cut off names the old master: its answer does not count as long as a
        later one is known and other sentinels are silent. Takes little more than `LOOK_S`. Raises
        `SentinelFailure`.
        """
        with self._lock:
            failures: dict[str, Exception] = {}
            answers = list(self._answers(failures))
            if not answers:
                raise self._reason(failures)
            best = max(answers, key=lambda master: master.epoch)
            known = self._latest
            if known is None or best.epoch >= known.epoch or len(answers) == len(self._members):
                self._latest = known = best
            return known

    def _answers(self, failures: dict[str, Exception]) -> Iterator[Master]:
        began, found = monotonic(), False
        for member in sorted(self._members, key=lambda member: member.failed_at > began - AVOID_S):
            late = monotonic() - began > LOOK_S
            if late or (found and member.failed_at > began - AVOID_S):
                break
            try:
                yield member.master(self._place.service)
                found = True
                member.failed_at = -AVOID_S
            except (redis.RedisError, OSError, ValueError) as error:
                member.failed_at = monotonic()
                failures[member.name] = error

    def _reason(self, failures: dict[str, Exception]) -> SentinelFailure:
        """Return why no sentinel has named a master; the sentinel that says most is the reason."""
        for name, error in failures.items():
            text = str(error)
            if "No such master" in text:
                return UnknownService(self._unknown(name))
            if isinstance(error, _REFUSALS):
                return SentinelRefused(f"The sentinel {name} refuses: {text.removesuffix('.')}")
            if "unknown command" in text.lower():
                return NotASentinel(f"The server {name} is no sentinel")
        told = [f"{name}: {_cause(error)}" for name, error in failures.items()]
        return NoSentinel(f"No sentinel answers ({', '.join(told)})")

    def _unknown(self, name: str) -> str:
        member = next(each for each in self._members if each.name == name)
        try:
            known = ", ".join(member.services()) or "none"
        except (redis.RedisError, OSError, ValueError):
            known = "others"
        return f"Sentinel knows no service {self._place.service}, it knows {known}"


def _cause(error: Exception) -> str:
    """Return the reason of a failed connection in few words, without what redis-py adds."""
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return "no answer in time"
    for one in with_causes(error):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return str(error).removesuffix(".")
