"""Variables that Kubernetes makes in every pod for each service of the namespace."""

from __future__ import annotations

import re

_URL = re.compile(r"(?:tcp|udp|sctp)://")
_MADE = re.compile(
    r"_SERVICE_HOST|_SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?"
)


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes has made a variable for a service, as Docker's links had them.

    Of a service ``clusterer-metrics`` these begin with ``CLUSTERER_METRICS_``, and
    ``CLUSTERER_METRICS_PORT`` is an URL such as ``tcp://10.0.0.7:9400``.
    """
    if name.endswith("_PORT") and _URL.match(value):
        return True
    return any(found.end() == len(name) for found in _MADE.finditer(name))


def why_ignored(name: str, value: str) -> str:
    """Return why a variable with a setting's name is left out, and how to be rid of it."""
    service = name.removesuffix("_PORT").lower().replace("_", "-")
    return (
        f"ignored {name}={value:.80}: Kubernetes makes it for a service named {service}; set "
        "enableServiceLinks: false in the pod's spec, or give the service another name"
    )
