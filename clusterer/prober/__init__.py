"""The prober of a host: says which nodes this host reaches, so that one broken link is one path."""

from clusterer.prober.prober import Prober

__all__ = ["Prober"]
