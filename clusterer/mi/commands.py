"""MI commands and their results as values, independent of the protocol."""

from __future__ import annotations

from dataclasses import dataclass


class MiError(Exception):
    """The error reply to a command: an HTTP-like ``code`` and a ``reason``."""

    def __init__(self, code: int, reason: str, detail: str = "") -> None:
        """``detail``: more than the words of OpenSIPS 2.2, for replies with a field for it."""
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason
        self.detail = detail


class FifoError(MiError):
    """An error of mi_fifo, not of a command: its reply has no final empty line."""


class ParseError(FifoError):
    """A parameter of a command is malformed."""

    def __init__(self, name: str) -> None:
        super().__init__(400, f"parse error in command '{name}'")


class UnknownCommand(FifoError):
    """The command does not exist."""

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


@dataclass(frozen=True, slots=True)
class Which:
    """List the commands, or the parameter lists of one command."""

    command: str = ""


Command = Reload | ListNodes | SetStatus | Which


@dataclass(frozen=True, slots=True)
class Ok:
    """Success without a result."""


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node in the reply to clusterer_list, under the names of OpenSIPS 3's JSON."""

    node_id: int
    db_id: int
    url: str
    state: int
    """The table's number: 0 down, 1 up, 2 probing or disabled."""
    last_failed_attempt: int
    """UNIX time, seconds."""
    max_failed_attempts: int
    no_tries: int
    seconds_until_enabling: int
    """The row's duration in every state, as in OpenSIPS 2.2."""
    description: str
    """``none`` for a row without a description."""
    link_state: str = "Up"
    """State as OpenSIPS 3 writes it: ``Up``, ``Probe`` or ``Down``."""
    next_hop: str = "none"
    """machine_id of the next node on the way to this node: always its own; or ``none``."""


@dataclass(frozen=True, slots=True)
class ListedCluster:
    """A cluster that contains the instance."""

    cluster_id: int
    nodes: tuple[ListedNode, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """The result of `ListNodes`."""

    clusters: tuple[ListedCluster, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """The result of `Which` without a command."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipes:
    """The result of `Which` with a command: each of its parameter lists."""

    recipes: tuple[tuple[str, ...], ...]


Result = Ok | Listed | Names | Recipes
