"""Parameters of a query, parsed; an empty text counts as not given."""

from __future__ import annotations

from clusterer.console.page import Parameters
from clusterer.errors import InvalidArgument
from clusterer.ids import MAX_ID

MOST_IN_LIST = 20
"""Most items of a list."""
_MIN_TYPE, _MAX_TYPE = -(2**31), 2**31 - 1


def text(parameters: Parameters, name: str) -> str:
    """Return the text without spaces around it; empty if not given."""
    return str(parameters.get(name, "")).strip()


def id_of(parameters: Parameters, name: str) -> int | None:
    """Return a machine_id or cluster_id; None if not given. Raises `InvalidArgument`."""
    found = _numbers(name, [text(parameters, name)], 1, MAX_ID)
    return found[0] if found else None


def whole(parameters: Parameters, name: str) -> int | None:
    """Return a number from 0; None if not given. Raises `InvalidArgument`."""
    found = _numbers(name, [text(parameters, name)], 0, 2**53)
    return found[0] if found else None


def words(parameters: Parameters, name: str) -> tuple[str, ...]:
    """Return the items of a list with commas. Raises `InvalidArgument`."""
    found = tuple(each.strip() for each in text(parameters, name).split(",") if each.strip())
    if len(found) > MOST_IN_LIST:
        raise InvalidArgument(f"{name} has {len(found)} items, at most {MOST_IN_LIST} fit")
    return found


def machine_ids(parameters: Parameters, name: str) -> tuple[int, ...]:
    """Return a list of machine_ids. Raises `InvalidArgument`."""
    return _numbers(name, words(parameters, name), 1, MAX_ID)


def types(parameters: Parameters, name: str) -> tuple[int, ...]:
    """Return a list of packet types. Raises `InvalidArgument`."""
    return _numbers(name, words(parameters, name), _MIN_TYPE, _MAX_TYPE)


def choice(parameters: Parameters, name: str, choices: tuple[str, ...]) -> str:
    """Return one of ``choices``; empty if not given. Raises `InvalidArgument`."""
    found = text(parameters, name)
    if found and found not in choices:
        raise InvalidArgument(f"{name} must be {' or '.join(choices)}, not {found!r}")
    return found


def _numbers(name: str, texts: list[str] | tuple[str, ...], low: int, high: int) -> tuple[int, ...]:
    found = []
    for each in filter(None, texts):
        digits = each.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(high))):
            raise InvalidArgument(f"{name} must be a whole number, not {each!r}")
        if not low <= int(each) <= high:
            raise InvalidArgument(f"{name} must be from {low} to {high}, not {each}")
        found.append(int(each))
    return tuple(found)
