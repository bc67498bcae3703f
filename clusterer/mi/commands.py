"""The three MI commands as values, made from words (FIFO) or from names (JSON-RPC)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clusterer.ids import MAX_ID

PROTOCOLS = frozenset({"bin", "udp", "tcp", "tls", "sctp", "ws", "wss"})
"""Those of OpenSIPS 2.2 that can stand in a URL of the table."""

BAD_PARAMETER = "Bad parameter"
WRONG_COUNT = "Too few or too many arguments"


class MiError(Exception):
    """A command that is answered with an error: an HTTP-like ``code`` and a ``reason``."""

    def __init__(self, code: int, reason: str, detail: str = "") -> None:
        """Make one; ``detail`` says more than 2.2's wording, where a reply has room for it."""
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason
        self.detail = detail


class UnknownCommand(MiError):
    """There is no such command."""

    def __init__(self, name: str) -> None:
        super().__init__(500, f"command '{name}' not available")


@dataclass(frozen=True, slots=True)
class Reload:
    """Load the table."""


@dataclass(frozen=True, slots=True)
class ListNodes:
    """List the other nodes of the instance's clusters."""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Take a node down (``status`` 0) or up (1)."""

    cluster_id: int
    machine_id: int
    status: int
    protocol: str


Command = Reload | ListNodes | SetStatus


@dataclass(frozen=True, slots=True)
class Ok:
    """Done; nothing to tell."""


@dataclass(frozen=True, slots=True)
class ListedNode:
    """What clusterer_list tells of a node; the names are those of OpenSIPS 3's JSON."""

    node_id: int
    db_id: int
    url: str
    state: int
    last_failed_attempt: int
    """UNIX time, seconds."""
    max_failed_attempts: int
    no_tries: int
    seconds_until_enabling: int
    """The row's duration, whatever the state: that is what 2.2 prints under this name."""
    description: str
    """``none`` if the row has none."""


@dataclass(frozen=True, slots=True)
class ListedCluster:
    """A cluster that contains the instance."""

    cluster_id: int
    nodes: tuple[ListedNode, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """The answer to `ListNodes`."""

    clusters: tuple[ListedCluster, ...]


Result = Ok | Listed

Words = Sequence[str]

STATUS_PARAMETERS = ("cluster_id", "machine_id", "status", "protocol")


def _nothing(command: Callable[[], Command]) -> Callable[[Words], Command]:
    def build(words: Words) -> Command:
        if words:
            raise MiError(400, WRONG_COUNT)
        return command()

    return build


def _set_status(words: Words) -> Command:
    if not 3 <= len(words) <= len(STATUS_PARAMETERS):
        raise MiError(400, WRONG_COUNT)
    if len(words) == 3:  # 2.2 counts to three, and then finds that there is no protocol
        raise MiError(400, BAD_PARAMETER, "protocol is missing")
    cluster_id, machine_id, status, protocol = words
    if status not in ("0", "1"):
        raise MiError(400, BAD_PARAMETER, f"status must be 0 (down) or 1 (up), not {status!r}")
    if protocol.lower() not in PROTOCOLS:
        raise MiError(400, BAD_PARAMETER, f"unknown protocol {protocol!r}")
    return SetStatus(
        _number("cluster_id", cluster_id),
        _number("machine_id", machine_id),
        int(status),
        protocol.lower(),
    )


def _number(name: str, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 10 and 1 <= int(word) <= MAX_ID):
        raise MiError(400, BAD_PARAMETER, f"{name} must be from 1 to {MAX_ID}, not {word[:40]!r}")
    return int(word)


_BUILDERS: Mapping[str, tuple[tuple[str, ...], Callable[[Words], Command]]] = MappingProxyType(
    {
        "clusterer_reload": ((), _nothing(Reload)),
        "clusterer_list": ((), _nothing(ListNodes)),
        "clusterer_set_status": (STATUS_PARAMETERS, _set_status),
    }
)
"""Name of each command → names of its parameters in their order, and what makes it of them."""


def takes_parameters(name: str) -> bool:
    """Whether lines of parameters follow; of an unknown command there may be some."""
    return name not in _BUILDERS or bool(_BUILDERS[name][0])


def command_from_words(name: str, words: Words) -> Command:
    """Return the command ``name`` with its parameters in order; raises `MiError`."""
    if name not in _BUILDERS:
        raise UnknownCommand(name)
    return _BUILDERS[name][1](words)


def command_from_names(name: str, values: Mapping[str, str]) -> Command:
    """Return the command ``name`` with named parameters; raises `MiError`."""
    if name not in _BUILDERS:
        raise UnknownCommand(name)
    names, build = _BUILDERS[name]
    unknown = [given for given in values if given not in names]
    missing = [wanted for wanted in names if wanted not in values]
    if unknown or missing:
        words = [f"{word} is missing" for word in missing]
        words += [f"{word[:40]!r} is no parameter of {name}" for word in unknown]
        raise MiError(400, WRONG_COUNT, ", ".join(words))
    return build([values[wanted] for wanted in names])
