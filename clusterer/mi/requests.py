"""The table of MI commands, and their construction from words (FIFO) or JSON-RPC parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from clusterer.ids import MAX_ID
from clusterer.mi.commands import (
    Command,
    ListNodes,
    MiError,
    Names,
    Recipes,
    Reload,
    SetStatus,
    UnknownCommand,
    Which,
)

PROTOCOLS = frozenset({"bin", "udp", "tcp", "tls", "sctp", "ws", "wss"})
"""The protocols of OpenSIPS 2.2 that a URL of the table may have."""

_WITHOUT_NODES = "hep_udp"
"""A protocol of OpenSIPS 2.2 that no URL of the table may have."""

BAD_PARAMETER = "Bad parameter"
WRONG_COUNT = "Too few or too many arguments"

Words = Sequence[str]

_SAME = MappingProxyType({"machine_id": "node_id"})
"""Parameter in OpenSIPS 2.2 → the same parameter in OpenSIPS 3."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A command: its constructor from all parameters, and their names in order."""

    build: Callable[[Words], Command]
    needed: tuple[str, ...] = ()
    optional: Mapping[str, str] = field(default_factory=dict)
    """Parameter that JSON-RPC may omit → its default."""
    has_lines: bool = False
    """Whether lines of parameters follow in the FIFO."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.needed + tuple(self.optional)

    @property
    def recipes(self) -> tuple[tuple[str, ...], ...]:
        return tuple(self.names[:n] for n in range(len(self.needed), len(self.names) + 1))


def _nothing(command: Callable[[], Command]) -> Callable[[Words], Command]:
    def build(words: Words) -> Command:
        if words:
            raise MiError(400, WRONG_COUNT)
        return command()

    return build


def _set_status(words: Words) -> Command:
    if not 3 <= len(words) <= 4:
        raise MiError(400, WRONG_COUNT)
    if len(words) == 3:  # OpenSIPS 2.2 accepts three, and then finds no protocol
        raise MiError(400, BAD_PARAMETER, "protocol is missing")
    cluster_id, machine_id, status, protocol = words
    if status not in ("0", "1"):
        raise MiError(400, BAD_PARAMETER, f"status must be 0 (down) or 1 (up), not {status[:40]!r}")
    if protocol.lower() == _WITHOUT_NODES:
        raise MiError(404, "No such node", f"no node has the protocol {_WITHOUT_NODES!r}")
    if protocol.lower() not in PROTOCOLS:
        raise MiError(400, BAD_PARAMETER, f"unknown protocol {protocol[:40]!r}")
    return SetStatus(
        _number("cluster_id", cluster_id),
        _number("node_id", machine_id),
        int(status),
        protocol.lower(),
    )


def _which(words: Words) -> Command:
    return Which(*words[:1])


def _number(name: str, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 10 and 1 <= int(word) <= MAX_ID):
        raise MiError(400, BAD_PARAMETER, f"{name} must be from 1 to {MAX_ID}, not {word[:40]!r}")
    return int(word)


_RELOAD = _Known(_nothing(Reload))
_LIST = _Known(_nothing(ListNodes))
_SET_STATUS = _Known(
    _set_status,
    needed=("cluster_id", "node_id", "status"),
    optional={"protocol": "bin"},  # the only one of OpenSIPS 3, whose tools name none
    has_lines=True,
)

_COMMANDS: Mapping[str, _Known] = MappingProxyType(
    {
        "clusterer_list": _LIST,
        "clusterer_reload": _RELOAD,
        "clusterer_set_status": _SET_STATUS,
        # Newer names in OpenSIPS.
        "clusterer:list": _LIST,
        "clusterer:reload": _RELOAD,
        "clusterer:set_status": _SET_STATUS,
        "which": _Known(_which, optional={"command": ""}),
    }
)


def takes_parameters(name: str) -> bool:
    """Whether lines of parameters follow in the FIFO; never for an unknown command."""
    return name in _COMMANDS and _COMMANDS[name].has_lines


def command_from_words(name: str, words: Words) -> Command:
    """Return the command ``name`` with its parameters in the order of OpenSIPS 2.2's FIFO.

    Raises `MiError`.
    """
    return _known(name).build(words)


def command_from_list(name: str, words: Words) -> Command:
    """Return the command ``name`` with JSON-RPC's parameters in order; raises `MiError`."""
    known = _known(name)
    if not len(known.needed) <= len(words) <= len(known.names):
        raise MiError(400, WRONG_COUNT, f"{name} takes {_ways(known)}, not {len(words)} parameters")
    left_out = known.names[len(words) :]
    return known.build([*words, *(known.optional[parameter] for parameter in left_out)])


def command_from_names(name: str, values: Mapping[str, str]) -> Command:
    """Return the command ``name`` with named parameters; raises `MiError`."""
    known = _known(name)
    given = {_SAME.get(parameter, parameter): value for parameter, value in values.items()}
    missing = [wanted for wanted in known.needed if wanted not in given]
    unknown = [word for word in given if word not in known.names]
    twice = len(given) < len(values)
    if unknown or missing or twice:
        words = [f"{word} is missing" for word in missing]
        words += [f"{word[:40]!r} is not a parameter of {name}" for word in unknown]
        words += ["node_id and machine_id are the same"] if twice else []
        raise MiError(400, WRONG_COUNT, ", ".join(words))
    whole = {**known.optional, **given}
    return known.build([whole[parameter] for parameter in known.names])


def tell(which: Which) -> Names | Recipes:
    """Return the result of ``which``; raises `MiError` for an unknown command."""
    if not which.command:
        return Names(tuple(_COMMANDS))
    if which.command not in _COMMANDS:
        raise MiError(404, "unknown MI command", which.command[:60])
    return Recipes(_COMMANDS[which.command].recipes)


def _known(name: str) -> _Known:
    if name not in _COMMANDS:
        raise UnknownCommand(name)
    return _COMMANDS[name]


def _ways(known: _Known) -> str:
    return " or ".join(f"({', '.join(recipe)})" for recipe in known.recipes)
