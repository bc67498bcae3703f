"""The services: one function for each command and job, on top of the adapters."""

from clusterer.services.context import Context

__all__ = ["Context"]
