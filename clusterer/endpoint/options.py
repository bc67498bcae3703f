"""The options after the ? of a URL: their names, their values, and what to write in their place.

A part of a password may look like an option. No message repeats a value, and a message names an
unknown option only if the name looks like one and no option holds a password. Files and ciphers of
TLS are tried out without a connection.
"""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

_NAME = re.compile(r"[a-z]{2,}(?:_[a-z]+)*")
_TRUE = ("true", "yes", "1")
_FALSE = ("false", "no", "0")

_TLS_FILES = ("certfile", "keyfile")
_TLS_REASONS = {
    "cafile": "it has no certificate in PEM format",
    "capath": "it is not a directory",
    "cadata": "it has no certificate in PEM format",
    "certfile": "certificate and key are not in PEM format, do not fit, or need a password",
    "keyfile": "certificate and key are not in PEM format, do not fit, or need a password",
    "ciphers": "OpenSSL knows no such cipher",
}

OURS = "clusterer sets it itself: leave it out"
"""Advice for an option of the client library that clusterer depends on."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that an option may have: ``must`` says which, ``accepts`` tells whether."""

    must: str
    accepts: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one setting."""

    known: Mapping[str, Kind]
    instead: Mapping[str, str]
    """Option that is not known, in lower case and with _ for - → what to do about it."""

    def problem(self, query: str) -> str:
        """Return what is wrong with ``query`` in words that follow the setting's name."""
        pairs = parse_qsl(query, keep_blank_values=True)
        if not query or any("=" not in part for part in query.split("&") if part):
            return "has an option after the ? that is unknown or has no value"
        problems = (self._problem_of(name, value, pairs) for name, value in pairs)
        return next(filter(None, problems), "")

    def _problem_of(self, name: str, value: str, pairs: list[tuple[str, str]]) -> str:
        usual = name.lower().replace("-", "_")
        if usual in self.instead:
            return f"has the option {usual} after the ?: {self.instead[usual]}"
        if name not in self.known:
            return self._unknown(name, value, pairs)
        if sum(other == name for other, _ in pairs) > 1:
            return f"has the option {name} twice after the ?"
        if not self.known[name].accepts(value):
            return f"has an option {name} after the ? that is not {self.known[name].must}"
        return ""

    @staticmethod
    def _unknown(name: str, value: str, pairs: list[tuple[str, str]]) -> str:
        # Beside a password, what looks like an option may be the password's end.
        hidden = any("pass" in other for other, _ in pairs)
        if hidden or not value.strip("=") or not _NAME.fullmatch(name):
            return "has an option after the ? that is unknown or has no value"
        return f"has an unknown option {name!r} after the ? (a & in a value is written %26)"


def truth(value: str) -> bool:
    """Return the meaning of a `FLAG`'s value."""
    return value.lower() in _TRUE


def whole(smallest: int, largest: int) -> Kind:
    """Return the kind of whole numbers from ``smallest`` to ``largest``."""

    def accepts(value: str) -> bool:
        return bool(re.fullmatch("[0-9]{1,10}", value)) and smallest <= int(value) <= largest

    return Kind(f"a whole number from {smallest} to {largest}", accepts)


def one_of(*values: str) -> Kind:
    """Return the kind of options that have one of these ``values``."""
    return Kind(" or ".join(values), values.__contains__)


def _is_seconds(value: str) -> bool:
    try:
        number = float(value)
    except ValueError:
        return False
    return math.isfinite(number) and 0 < number <= _LONGEST_S


_LONGEST_S = 3600
SECONDS = Kind(f"a number of seconds above 0 and up to {_LONGEST_S}", _is_seconds)
FLAG = Kind("true or false", lambda value: value.lower() in _TRUE + _FALSE)
TEXT = Kind("a text", bool)
WORD = Kind("a text without spaces", lambda value: bool(re.fullmatch("[!-~]+", value)))


def tls_problem(options: Mapping[str, str], names: Mapping[str, str]) -> str:
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
    """Yield the part with the fault, and what fails if it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for part in ("cafile", "cadata"):
        if part in given:
            yield part, partial(context.load_verify_locations, **{part: given[part]})
    if "capath" in given:  # OpenSSL takes any
        yield "capath", partial(os.listdir, given["capath"])
    yield from ((part, Path(given[part]).read_bytes) for part in _TLS_FILES if part in given)
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
    return _TLS_REASONS[part]
