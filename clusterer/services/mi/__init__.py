"""Serving OpenSIPS's management interface: over FIFOs, HTTP and datagrams."""

from clusterer.services.mi.serve import Options, serve

__all__ = ["Options", "serve"]
