"""An action of the console: its form, its plan, and the change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterer.console.page import Parameters
from clusterer.services.admin.set_status import MAX_REASON

if TYPE_CHECKING:
    from clusterer.console.console import Console


@dataclass(frozen=True, slots=True)
class Field:
    """One input of a form."""

    name: str
    label: str
    kind: str = "text"
    """``text``, ``number`` or ``choice``."""
    about: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    """Value and label of each, for ``choice``."""
    most: int = 0
    """Characters; 0: no limit."""
    required: bool = True


REASON = Field(
    "reason", "Reason", about="For the other operators: an event keeps it", most=MAX_REASON
)


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an action, before the operator has changed anything."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Values of the fields."""
    facts: tuple[str, ...] = ()
    """The present state, in sentences."""
    seen: Mapping[str, str] = field(default_factory=dict)
    """What the operator sees, and what must not have changed when the action is carried out."""


@dataclass(frozen=True, slots=True)
class Given:
    """What an operator gave."""

    values: Mapping[str, str]
    """Values of the fields; fields that are missing are empty."""
    seen: Mapping[str, str]
    """`Form.seen` of the form; empty for a script that did not send it."""
    by: str
    """The author, for the audit."""
    reason: str
    dry_run: bool


def is_number(text: str) -> bool:
    """Whether a field has a whole number of at most ten digits."""
    return text.isascii() and text.isdigit() and len(text) <= 10


@dataclass(frozen=True)
class Action:
    """A change of the cluster by a user with the role *operate*.

    - ``GET {path}``: the form
    - ``POST {path}``: the plan, and then the change
    - ``POST {path}/check``: the plan or the fault as JSON, while the operator types
    - ``POST /api/v1{path}``: the change as JSON, or with ``"dry_run": "1"`` the plan
    """

    name: str
    path: str
    title: str
    """With the parameters of the path: ``Edit node {machine_id}``."""
    button: str
    """An imperative: what the button does."""
    load: Callable[[Console, Parameters], Form]
    """Runs in a thread; raises as `Page.load` does."""
    act: Callable[[Console, Parameters, Given], tuple[str, ...]]
    """Return what the action will do (``dry_run``), or has done, in sentences.

    Runs in a thread. Raises `InvalidArgument` for a bad value, `ChangedMeanwhile` if another
    operator has changed what `Form.seen` shows, and the other errors of a service.
    """
    back: str
    """Route of the page to which the operator returns; its parameters are among those of `path`."""
    fields: tuple[Field, ...] = ()
    needed: tuple[str, ...] = ()
    """Fields that a script must send; a missing one of the others has its default or stays."""
    danger: bool = False
    """Whether the action deletes something."""
