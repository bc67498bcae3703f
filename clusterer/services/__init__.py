"""What commands and jobs do: one function each, on top of the adapters."""

from clusterer.services.context import Context

__all__ = ["Context"]
