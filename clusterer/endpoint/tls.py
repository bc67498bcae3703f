"""The files and ciphers of a TLS client, tried out without a connection."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

_FILES = ("certfile", "keyfile")
_REASONS = {
    "cafile": "it has no certificate in PEM format",
    "capath": "it is not a directory",
    "cadata": "it has no certificate in PEM format",
    "certfile": "certificate and key are not in PEM format, do not fit, or need a password",
    "keyfile": "certificate and key are not in PEM format, do not fit, or need a password",
    "ciphers": "OpenSSL knows no such cipher",
}


def problem(options: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Return which of ``options`` cannot be used and why, without values; empty if all can.

    ``names`` gives the option's name for each of cafile, capath, cadata, certfile, keyfile,
    password and ciphers that the client library knows.
    """
    given = {part: options[name] for part, name in names.items() if options.get(name)}
    for part, use in _trials(given):
        try:
            use()
        except (OSError, ValueError, TypeError) as error:
            return f"{names[part]} cannot be used: {_reason(part, error)}"
    return ""


def _trials(given: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the part that is to blame, and what fails if it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for part in ("cafile", "cadata"):
        if part in given:
            yield part, partial(context.load_verify_locations, **{part: given[part]})
    if "capath" in given:  # OpenSSL takes any
        yield "capath", partial(os.listdir, given["capath"])
    yield from ((part, Path(given[part]).read_bytes) for part in _FILES if part in given)
    certificate, key = given.get("certfile"), given.get("keyfile")
    if certificate:
        # OpenSSL asks the terminal for the password of a key unless it is given one.
        load = partial(context.load_cert_chain, certificate, key, given.get("password", ""))
        yield "keyfile" if key else "certfile", load
    if "ciphers" in given:
        yield "ciphers", partial(context.set_ciphers, given["ciphers"])


def _reason(part: str, error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return str(error.strerror)
    return _REASONS[part]
