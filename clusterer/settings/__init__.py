"""Settings: their values and rules. `sources` merges defaults, file, variables and arguments."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from clusterer.errors import SettingsError
from clusterer.settings.texts import read_bool, read_cluster_ids

DEFAULT_DELIVERY_QUEUE = "clusterer-delivery"
MAINTENANCE_QUEUE = "clusterer-maintenance"
DATABASE_QUEUE = "clusterer-database"
WORKER_KINDS = ("delivery", "maintenance", "database")
ENV_PREFIX = "CLUSTERER_"
CONFIG_VARIABLE = "CLUSTERER_CONFIG"
SECRETS = ("redis_url", "db_url")
"""Settings that may hold a password: CLUSTERER_NAME_FILE names a file that holds the value."""
BACKLOG_DROP = "drop"
BACKLOG_REPLAY = "replay"
OVERFLOW_RAISE = "raise"
OVERFLOW_DROP_OLDEST = "drop_oldest"
REENABLE_UP = "up"
REENABLE_PROBE = "probe"
LOG_AUTO = "auto"

_NOUNS = {bool: "yes or no", int: "a whole number", float: "a number", str: "text"}


def _setting(default: object, about: str, *range_: float, choices: tuple[str, ...] = ()) -> Any:
    """Return a field; ``range_``: smallest and greatest number."""
    return field(default=default, metadata={"about": about, "range": range_, "choices": choices})


def _secret_text(about: str) -> Any:
    return field(default="", metadata={"about": about}, repr=False)


def _text(about: str, reads: Callable[[str], object], noun: str) -> Any:
    """Return a field of text that ``reads`` takes without `ValueError`; ``noun``: what it is."""
    return field(default="", metadata={"about": about, "reads": reads, "noun": noun})


def _name(default: str, about: str) -> Any:
    return field(default=default, metadata={"about": about, "required": True})


@dataclass(frozen=True, slots=True)
class Settings:
    """All that can be configured; names are those of the OpenSIPS module where it has one.

    A value that cannot be used raises `SettingsError`.
    """

    db_url: str = _secret_text(
        "provisioning database: mysql://user:pw@host/db or an SQLAlchemy URL"
    )
    db_table: str = _name("clusterer", "name of the provisioning table")
    server_id: int = _setting(0, "machine_id of this instance", 0, 2**31 - 1)
    persistent_mode: bool = _setting(False, "write state changes back to the table")
    cluster_id_col: str = _name("cluster_id", "column of the cluster_id")
    machine_id_col: str = _name("machine_id", "column of the machine_id")
    clusterer_id_col: str = _name("id", "column of the row's primary key")
    state_col: str = _name("state", "column of the state")
    url_col: str = _name("url", "column of the URL")
    description_col: str = _name("description", "column of the description")
    failed_attempts_col: str = _name("failed_attempts", "column of the allowed failed attempts")
    last_attempt_col: str = _name("last_attempt", "column of the last failed attempt's time")
    duration_col: str = _name("duration", "column of the temporary disabling's length")
    no_tries_col: str = _name("no_tries", "column of the number of failed tries")
    redis_url: str = _secret_text(
        "Redis: redis://, rediss://, unix:// or sentinel:// URL; empty means embedded"
    )
    wait_replicas: int = _setting(
        0, "replicas of Redis that must have a packet before a send returns", 0, 100
    )
    data_dir: str = _setting("", "directory of the embedded Redis and SQLite file")
    delivery_queue: str = _name(
        DEFAULT_DELIVERY_QUEUE, "RQ queue whose workers deliver for this instance"
    )
    opensips_3_clusters: str = _text(
        "cluster_ids whose nodes are OpenSIPS 3.2 to 4.0, separated by commas",
        read_cluster_ids,
        "cluster_ids from 1 to 2147483647, separated by commas",
    )
    probe_interval: float = _setting(1.0, "seconds between pings of a probing node", 0.1, 3600)
    ping_interval: float = _setting(
        5.0, "seconds in which each node that is up is pinged twice; 0: no pings", 0, 3600
    )
    reenable: str = _setting(
        REENABLE_UP,
        "what enables a disabled node after its duration: up, by itself; probe, an answered ping",
        choices=(REENABLE_UP, REENABLE_PROBE),
    )
    resolve_interval: float = _setting(
        60.0, "seconds between resolutions of nodes' names; 0: at a reload only", 0, 86400
    )
    history_interval: float = _setting(
        10.0, "seconds between samples of each node's traffic for charts; 0: no samples", 0, 3600
    )
    send_timeout: float = _setting(2.0, "seconds without progress until a send failed", 0.1, 60)
    linger: float = _setting(5.0, "seconds a delivery job stays without traffic", 0, 3600)
    backlog: str = _setting(
        BACKLOG_DROP,
        "packets for a node that is not up: drop or replay",
        choices=(BACKLOG_DROP, BACKLOG_REPLAY),
    )
    backlog_max_age: float = _setting(60.0, "seconds an undelivered packet is kept", 1, 86400)
    log_max_packets: int = _setting(1_000_000, "packets kept in a sender's log", 1, 10**9)
    post_buffer: int = _setting(
        16 * 1024 * 1024, "bytes of posted packets that may wait for Redis", 65_536, 2**40
    )
    post_overflow: str = _setting(
        OVERFLOW_RAISE,
        "what post does when the buffer is full: raise BufferFull or drop_oldest",
        choices=(OVERFLOW_RAISE, OVERFLOW_DROP_OLDEST),
    )
    flush_interval: float = _setting(
        0.001, "seconds that a posted packet waits for more packets", 0, 60
    )
    max_connections: int = _setting(10_000, "inbound BIN connections", 1, 10**6)
    max_connections_per_address: int = _setting(
        0,
        "inbound BIN connections from an address of no node; 0: a quarter of max_connections",
        0,
        10**6,
    )
    connection_lifetime: float = _setting(
        120.0, "seconds an idle inbound connection stays open", 1, 86400
    )
    max_message_time: float = _setting(4.0, "seconds an unfinished frame may take", 0.1, 3600)
    allow_foreign_source: bool = _setting(
        False, "deliver for senders whose BIN address is not local to this host"
    )
    log_format: str = _setting("human", "form of log lines", choices=("human", "json"))
    log_level: str = _setting(
        LOG_AUTO,
        "what is logged; auto: info in processes that run until stopped, else warning",
        choices=(LOG_AUTO, "debug", "info", "warning", "error"),
    )
    metrics_port: int = _setting(
        0, "TCP port of this process's Prometheus metrics; 0: none", 0, 65535
    )
    metrics_address: str = _name("127.0.0.1", "IP address on which metrics are served")

    replicate_pipes_to: int = _setting(
        0, "cluster_id to replicate ratelimit pipes to; 0 for none", 0, 2**31 - 1
    )
    accept_pipes_from: int = _setting(
        0, "cluster_id to accept ratelimit pipes from; 0 for none", 0, 2**31 - 1
    )
    accept_pipes_timeout: int = _setting(
        10, "seconds of silence that invalidate a node's ratelimit pipes", 0, 86400
    )
    repl_pipes_auth_check: bool = _setting(
        False, "take ratelimit pipes only from IP addresses and machine_ids of the table"
    )

    def __post_init__(self) -> None:
        for name in _KINDS:
            _check(name, getattr(self, name), "argument")
        for name in ("replicate_pipes_to", "accept_pipes_from"):
            if getattr(self, name) in self.dialect3:
                raise SettingsError(
                    f"{name} must be a cluster of OpenSIPS 2.2, and opensips_3_clusters has "
                    f"{getattr(self, name)}"
                )

    @property
    def dialect3(self) -> frozenset[int]:
        """The cluster_ids of ``opensips_3_clusters``: clusters of the dialect 3.x."""
        return read_cluster_ids(self.opensips_3_clusters)

    @property
    def data_path(self) -> Path:
        """Directory of embedded state: ``data_dir``, else the user's data directory.

        Raises `SettingsError` where that depends on a home directory and the user has none.
        """
        if self.data_dir:
            return _expanded(self.data_dir).absolute()
        return _expanded(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "clusterer"

    @property
    def redis_socket(self) -> Path:
        """Unix socket of the embedded Redis server."""
        return self.data_path / "redis.sock"


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the user has neither HOME nor an entry in /etc/passwd
        user = path[1:].split("/", maxsplit=1)[0] or f"uid {os.getuid()}"
        raise SettingsError(
            f"no directory for the embedded Redis and SQLite file: {path} needs a home directory, "
            f"and {user} has none; set data_dir (--data-dir DIR or CLUSTERER_DATA_DIR) to a "
            "directory, or redis_url and db_url to servers"
        ) from None


_KINDS: dict[str, type] = {item.name: type(item.default) for item in fields(Settings)}
_RULES: dict[str, Mapping[str, Any]] = {item.name: item.metadata for item in fields(Settings)}


def require_server_id(settings: Settings) -> int:
    """Return ``server_id``; raises `SettingsError` where it is not set."""
    if not settings.server_id:
        raise SettingsError(
            "server_id is not set: which machine_id of the table is this instance? "
            "Say so with --server-id N or CLUSTERER_SERVER_ID"
        )
    return settings.server_id


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the CLUSTERER_* variables with which a child process loads these same settings.

    Every setting is in it, so that neither a configuration file nor the parent's own environment
    can change one. ``data_dir`` stays as it was given: relative, it counts from the child's
    working directory.
    """
    return {variable_of(name): _as_text(getattr(settings, name)) for name in _KINDS}


def variable_of(name: str) -> str:
    """Return the name of the environment variable of a setting."""
    return ENV_PREFIX + name.upper()


def _as_text(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def convert(name: str, value: object, origin: str) -> Any:
    """Return ``value`` as the setting's own type: text is parsed, other types must fit."""
    kind = _KINDS.get(name)
    if kind is None:
        meant = difflib.get_close_matches(name, _KINDS, 1)
        hint = f"did you mean {meant[0]!r}?" if meant else "`clusterer --help` names all"
        # What is no name at all may be a URL with its password.
        shown = repr(name) if name.replace("-", "_").isidentifier() else "name"
        raise SettingsError(f"unknown setting {shown} ({origin}): {hint}")
    converted = _parse(name, kind, value, origin) if isinstance(value, str) else value
    if kind is float and type(converted) is int:
        converted = float(converted)
    _check(name, converted, origin)
    return converted


def _parse(name: str, kind: type, text: str, origin: str) -> Any:
    try:
        return read_bool(text) if kind is bool else kind(text)
    except ValueError:
        raise _wrong_kind(name, text, origin) from None


def _check(name: str, value: object, origin: str) -> None:
    kind, rule = _KINDS[name], _RULES[name]
    # Exact types: True is an int to isinstance, and no machine_id.
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise _wrong_kind(name, value, origin)
    if rule.get("range") and not rule["range"][0] <= value <= rule["range"][1]:
        low, high = rule["range"]
        raise SettingsError(f"{name} must be from {low} to {high}, not {value!r} ({origin})")
    if rule.get("required") and not value:
        raise SettingsError(f"{name} must not be empty ({origin})")
    if "reads" in rule and not _reads(rule["reads"], value):
        raise SettingsError(f"{name} must be {rule['noun']}, not {value!r:.80} ({origin})")
    choices = rule.get("choices")
    if choices and value not in choices:
        words = " or ".join(map(repr, choices))
        raise SettingsError(f"{name} must be {words}, not {value!r} ({origin})")


def _reads(read: Callable[[Any], object], value: object) -> bool:
    try:
        read(value)
    except ValueError:
        return False
    return True


def _wrong_kind(name: str, value: object, origin: str) -> SettingsError:
    shown = type(value).__name__ if name in SECRETS else repr(value)
    return SettingsError(f"{name} must be {_NOUNS[_KINDS[name]]}, not {shown} ({origin})")
