"""The options of redis_url: redis-py's, without those that clusterer depends on."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from redis.connection import parse_ssl_verify_flags

from clusterer.endpoint.options import (
    FLAG,
    OURS,
    SECONDS,
    TEXT,
    WORD,
    Kind,
    Options,
    one_of,
    tls_problem,
    whole,
)

_REDISS = "write rediss:// in place of redis:// for TLS"


def _are_verify_flags(value: str) -> bool:
    try:
        return bool(parse_ssl_verify_flags(value))  # type: ignore[no-untyped-call]
    except ValueError:
        return False


_VERIFY_FLAGS = Kind("a list of the VERIFY_ flags of Python's ssl module", _are_verify_flags)

_TLS: Mapping[str, Kind] = {
    **dict.fromkeys(("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path"), TEXT),
    **dict.fromkeys(("ssl_ca_data", "ssl_password", "ssl_ciphers"), TEXT),
    "ssl_cert_reqs": one_of("none", "optional", "required"),
    "ssl_check_hostname": FLAG,
    "ssl_min_version": one_of("771", "772"),  # TLS 1.2, TLS 1.3
    **dict.fromkeys(("ssl_include_verify_flags", "ssl_exclude_verify_flags"), _VERIFY_FLAGS),
}
_PLAIN: Mapping[str, Kind] = {
    "db": whole(0, 2**31 - 1),
    **dict.fromkeys(("username", "password"), TEXT),
    "client_name": WORD,
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), SECONDS),
    **dict.fromkeys(("socket_keepalive", "decode_responses"), FLAG),
    "socket_read_size": whole(1024, 2**24),
    "max_connections": whole(1, 2**16),
    "health_check_interval": whole(0, 3600),
}


def _instead(about_tls: str) -> Mapping[str, str]:
    """Return what to write in place of what other clients call an option."""
    verify, ca = "it is ssl_cert_reqs=none or required", "it is ssl_ca_certs"
    return {
        **dict.fromkeys(("ssl", "tls", "use_ssl", "use_tls", "usessl", "usetls"), about_tls),
        **dict.fromkeys(("ssl_mode", "sslmode", "tls_mode", "ssl_enabled", "secure"), about_tls),
        **dict.fromkeys(("ssl_ca", "tls_ca", "ca", "ca_cert", "cafile", "ssl_ca_cert"), ca),
        **dict.fromkeys(("ssl_cafile", "tls_ca_cert_file", "cacert"), ca),
        "ssl_capath": "it is ssl_ca_path",
        **dict.fromkeys(("ssl_cert", "tls_cert", "cert", "certfile"), "it is ssl_certfile"),
        **dict.fromkeys(("ssl_key", "tls_key", "key", "keyfile"), "it is ssl_keyfile"),
        **dict.fromkeys(("ssl_verify", "ssl_verify_cert", "verify", "insecure"), verify),
        "ssl_verify_identity": "it is ssl_check_hostname",
        "timeout": "it is socket_timeout",
        "connect_timeout": "it is socket_connect_timeout",
        **dict.fromkeys(("database", "dbnum"), "it is db, or the number after the last /"),
        "user": "it is username",
        **dict.fromkeys(("passwd", "pass", "auth"), "it is password"),
        **dict.fromkeys(("retry", "retry_on_timeout", "retry_on_error", "protocol"), OURS),
        **dict.fromkeys(("legacy_responses", "encoding", "encoding_errors", "charset"), OURS),
        **dict.fromkeys(("lib_name", "lib_version", "driver_info"), OURS),
    }


_NO_TLS = "a unix socket has no TLS"

_SENTINEL: Mapping[str, Kind] = {
    **_PLAIN,
    **dict.fromkeys(("sentinel_username", "sentinel_password"), TEXT),
}
_SENTINELS = "write sentinels:// in place of sentinel:// for TLS"
_SERVICE = "it is the name behind the hosts: sentinel://host:port/service"
_OF_SENTINEL: Mapping[str, str] = {
    **dict.fromkeys(("service", "service_name", "master", "master_name", "mastername"), _SERVICE),
    **dict.fromkeys(("sentinel_user", "sentinelusername"), "it is sentinel_username"),
    **dict.fromkeys(("sentinel_pass", "sentinelpassword"), "it is sentinel_password"),
}

OPTIONS: Mapping[str, Options] = {
    "rediss": Options({**_PLAIN, **_TLS}, _instead("rediss:// means TLS: leave it out")),
    "redis": Options(_PLAIN, {**_instead(_REDISS), **dict.fromkeys(_TLS, _REDISS)}),
    "unix": Options(_PLAIN, {**_instead(_NO_TLS), **dict.fromkeys(_TLS, _NO_TLS)}),
    "sentinels": Options(
        {**_SENTINEL, **_TLS},
        {**_OF_SENTINEL, **_instead("sentinels:// means TLS: leave it out")},
    ),
    "sentinel": Options(
        _SENTINEL, {**_OF_SENTINEL, **_instead(_SENTINELS), **dict.fromkeys(_TLS, _SENTINELS)}
    ),
}
"""By scheme."""

_FILES: Mapping[str, str] = {
    "cafile": "ssl_ca_certs",
    "capath": "ssl_ca_path",
    "cadata": "ssl_ca_data",
    "certfile": "ssl_certfile",
    "keyfile": "ssl_keyfile",
    "password": "ssl_password",
    "ciphers": "ssl_ciphers",
}


def problem_of_files(query: str) -> str:
    """Return which file or cipher that ``query`` names cannot be used; empty if all can."""
    found = tls_problem(dict(parse_qsl(query)), _FILES)
    return f"has an option after the ? that fails: {found}" if found else ""
