"""Who uses the console: a user with a role, or a visitor of a console without users."""

from __future__ import annotations

from dataclasses import dataclass

VIEW = "view"
OPERATE = "operate"
ROLES = (VIEW, OPERATE)


@dataclass(frozen=True, slots=True)
class User:
    """The user of one request."""

    name: str
    """Empty: the console has no users, and shows everything to each visitor."""
    role: str = VIEW

    @property
    def may_operate(self) -> bool:
        """Whether the user may change the cluster."""
        return self.role == OPERATE


VISITOR = User("")
