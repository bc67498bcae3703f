"""MI commands and what comes of them, as values: no protocol's wording is in here."""

from __future__ import annotations

from dataclasses import dataclass


class MiError(Exception):
    """A command that is answered with an error: an HTTP-like ``code`` and a ``reason``."""

    def __init__(self, code: int, reason: str, detail: str = "") -> None:
        """Make one; ``detail`` says more than 2.2's wording, where a reply has room for it."""
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason
        self.detail = detail


class FifoError(MiError):
    """An error of mi_fifo itself and not of a command: its reply has no empty line behind it."""


class ParseError(FifoError):
    """A parameter of a command cannot be understood."""

    def __init__(self, name: str) -> None:
        super().__init__(400, f"parse error in command '{name}'")


class UnknownCommand(FifoError):
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


@dataclass(frozen=True, slots=True)
class Which:
    """Tell the commands there are, or the ways to give the parameters of one."""

    command: str = ""


Command = Reload | ListNodes | SetStatus | Which


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
    """The table's number: 0 down, 1 up, 2 probing or disabled."""
    last_failed_attempt: int
    """UNIX time, seconds."""
    max_failed_attempts: int
    no_tries: int
    seconds_until_enabling: int
    """The row's duration, whatever the state: that is what 2.2 prints under this name."""
    description: str
    """``none`` if the row has none."""
    link_state: str = "Up"
    """OpenSIPS 3's word: ``Up``, ``Probe`` or ``Down``."""
    next_hop: str = "none"
    """OpenSIPS 3's: the node through which this one is reached, here itself; or ``none``."""


@dataclass(frozen=True, slots=True)
class ListedCluster:
    """A cluster that contains the instance."""

    cluster_id: int
    nodes: tuple[ListedNode, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """The answer to `ListNodes`."""

    clusters: tuple[ListedCluster, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """The answer to `Which` without a command."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipes:
    """The answer to `Which` with one: each way to give its parameters, by their names."""

    recipes: tuple[tuple[str, ...], ...]


Result = Ok | Listed | Names | Recipes
