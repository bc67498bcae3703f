"""What the servers ask to carry out a command; the service behind it is given to `serve`."""

from __future__ import annotations

from typing import Protocol

from clusterer.mi.commands import Command, MiError, Result


class Handler(Protocol):
    """Carries out commands for one instance."""

    async def handle(self, command: Command, via: str) -> Result | MiError:
        """Return the result of ``command``; ``via`` names the transport, for the audit."""
        ...

    async def about(self, command: Command) -> dict[str, object]:
        """Return the fields of a log line about ``command``: those of its node, if it has one."""
        ...
