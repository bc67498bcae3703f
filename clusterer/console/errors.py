"""The HTTP status of each error of a service."""

from __future__ import annotations

from clusterer.console.hub import Busy
from clusterer.console.page import NotFound
from clusterer.errors import (
    ChangedMeanwhile,
    InvalidArgument,
    ProvisioningError,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
)


def status_of(error: Exception) -> int:
    """Return the HTTP status for an error of a service."""
    if isinstance(error, NotFound | UnknownNode | UnknownCluster):
        return 404
    if isinstance(error, InvalidArgument) and not isinstance(error, ChangedMeanwhile):
        return 400
    return 503 if isinstance(error, StateUnavailable | ProvisioningError | Busy) else 409
