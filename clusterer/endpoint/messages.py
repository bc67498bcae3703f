"""Redis's errors in words for people."""

from __future__ import annotations

import re
import ssl

import redis

from clusterer.endpoint.connection import Unanswered
from clusterer.endpoint.primary import is_crowded
from clusterer.endpoint.redis_private import NoHandshake
from clusterer.endpoint.sentinels import NoSentinel, NotASentinel, SentinelRefused, UnknownService
from clusterer.endpoint.url import public_url
from clusterer.errors import with_causes
from clusterer.settings import Settings

_NOISE = re.compile(
    r"^Error -?\d+ connecting to .*?\. (?=[A-Z])"
    r"|^Error while reading from .*? : \(\d+, '|'\)$"
    r"|^Error -?\d+ while writing to socket\. "
    r"|^Command # \d+ \(.*?\) of pipeline caused error: "
    r"|\.? script: [0-9a-f]{40}, on @user_script:\d+"
    r"|(?<=protected mode) because .*"
    r"|\.$",
    re.DOTALL,
)
"""Parts of an error's text that say nothing of the error: the address, our own commands."""

_USER = "correct user and password in redis_url"
_RIGHTS = "let redis_url's user do that: `ACL SETUSER`"
_PRIMARY = "point redis_url at the primary server"
_MODE = "give Redis a password (requirepass, or ACL SETUSER) and redis_url the same"
_CROWD = "raise maxclients in redis.conf and the open files of Redis; docs/deployment.md has counts"
NO_CLUSTER = "use a server without cluster mode, or Sentinel: RQ's workers crash on Redis Cluster"
"""Advice for a node of a Redis Cluster."""
_SENTINEL_USER = (
    "correct sentinel_username and sentinel_password in redis_url; the user needs "
    "+sentinel|get-master-addr-by-name and +sentinel|master"
)
_ELSE = "start Redis, or correct redis_url"
_CLASSES: tuple[tuple[type[redis.RedisError], str], ...] = (
    (redis.AuthenticationError, _USER),
    (redis.exceptions.NoPermissionError, _RIGHTS),
    (redis.ReadOnlyError, _PRIMARY),
    (redis.exceptions.MasterDownError, _PRIMARY),
    (redis.exceptions.ClusterError, NO_CLUSTER),
    (redis.exceptions.ClusterDownError, NO_CLUSTER),
    (redis.exceptions.MovedError, NO_CLUSTER),
    (redis.exceptions.ClusterCrossSlotError, NO_CLUSTER),
    (redis.OutOfMemoryError, "raise maxmemory"),
    (redis.BusyLoadingError, "wait until it has"),
    (redis.MaxConnectionsError, "raise max_connections in redis_url, or leave it out"),
    (redis.InvalidResponse, f"{_ELSE}: the server there does not speak Redis's protocol"),
)
_WORDS = (
    ("^DENIED ", _MODE),
    ("HELLO must be called|NOAUTH|Authentication required|invalid username-password", _USER),
    ("no permissions|NOPERM", _RIGHTS),
    ("read only replica|READONLY|MASTERDOWN|UNBLOCKED", _PRIMARY),
    ("NOREPLICAS", "look at its replicas and at min-replicas-to-write"),
    ("used memory >", "raise maxmemory"),
    ("loading the dataset", "wait until it has"),
    ("MISCONF", "look at Redis's log and its disk"),
    ("^(MOVED|ASK|CROSSSLOT|CLUSTERDOWN) ", NO_CLUSTER),
    ("DB index is out of range", "correct the number of the database in redis_url"),
)
"""For errors of the server that redis-py has no class for, and those of scripts."""

_ON_THE_WAY: tuple[tuple[type[BaseException], str], ...] = (
    (
        NoSentinel,
        "start the sentinels, or correct redis_url (a port for TLS needs sentinels://)",
    ),
    (NotASentinel, "write the port of a sentinel in redis_url (by default 26379)"),
    (
        UnknownService,
        "correct the service in redis_url: the name after `sentinel monitor` in sentinel.conf",
    ),
    (SentinelRefused, _SENTINEL_USER),
    (Unanswered, f"{_ELSE} (a port for TLS needs rediss://)"),
    (NoHandshake, f"{_ELSE} (a port without TLS needs redis://)"),
    (
        ssl.SSLCertVerificationError,
        "let redis_url have the CA's file as ssl_ca_certs, and a host that the certificate names",
    ),
)
"""For connections that fail, by the class of the error or of one that it comes from."""

_CERTIFICATE = "give redis_url ssl_certfile and ssl_keyfile: Redis asks for a certificate"
_TLS = "look at the TLS settings of Redis (a port without TLS needs redis://)"


def error_at(settings: Settings, error: redis.RedisError) -> str:
    """Return the address of Redis, and the error of Redis or of the connection to it."""
    return f"Redis at {public_url(settings)}: {error_text(error)}"


def unconfigured(settings: Settings) -> str:
    """Return the remedy where no Redis is configured and none is embedded; else an empty text."""
    if settings.redis_url or settings.redis_socket.exists():
        return ""
    return (
        f"redis_url is not set, and no embedded Redis runs in {settings.data_path}: "
        "start `clusterer up`, or set redis_url"
    )


def awaited(settings: Settings, error: redis.RedisError) -> str:
    """Return the address of the Redis that a process waits for, the error, and the remedy."""
    if text := unconfigured(settings):
        return f"Redis: {text}"
    return f"{error_at(settings, error)}: {remedy(error)}"


def error_text(error: redis.RedisError) -> str:
    """Return the text of an error without the parts that redis-py adds."""
    text = _NOISE.sub("", str(error))
    return "Authentication required" if text.startswith("HELLO must be called") else text


def remedy(error: BaseException) -> str:
    """Return the operator's remedy for an error of Redis, or for an error raised from one.

    The text follows the kind of the error and the server's words, never the URL. The text is empty
    if the error itself says what to do.
    """
    cause = error if isinstance(error, redis.RedisError) else error.__cause__
    if "start `clusterer up`" in str(error):
        return ""
    if not isinstance(cause, redis.RedisError):
        return _ELSE
    if is_crowded(cause):
        return _CROWD
    for kind, what in _CLASSES:
        if isinstance(cause, kind):
            return what
    if isinstance(cause, redis.ConnectionError | redis.TimeoutError):
        return _on_the_way(cause)
    text = error_text(cause)
    return next((what for pattern, what in _WORDS if re.search(pattern, text)), _ELSE)


def _on_the_way(error: redis.RedisError) -> str:
    """Return the remedy for a connection that failed."""
    if any(map(_wants_certificate, with_causes(error))):
        return _CERTIFICATE
    for one in with_causes(error):
        for kind, what in _ON_THE_WAY:
            if isinstance(one, kind):
                return what
        if isinstance(one, ssl.SSLError):
            return _TLS
    return _ELSE


def _wants_certificate(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (error.reason or "")
