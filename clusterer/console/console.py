"""The console of one process: settings, the clients of the services, and what pages share."""

from __future__ import annotations

from clusterer.runtime.once import once
from clusterer.services import Context
from clusterer.settings import Settings


class Console:
    """Made once per process; the argument of every `Page.load`, which runs in several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @once
    def context(self) -> Context:
        """The clients with which pages and actions call the services."""
        return Context(self.settings)

    def close(self) -> None:
        """Close the open connections."""
        if "context" in self.__dict__:
            self.context.close()
