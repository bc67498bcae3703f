"""Connects to the BIN ports of nodes: for the probe job, and to tell `clusterer doctor` which nodes
a worker's host reaches.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any

from clusterer.delivery.link import SELF_CONNECTED, connected_to_itself
from clusterer.ids import PROTO_BIN
from clusterer.membership import Node, NodeKey, State
from clusterer.membership.views import all_nodes
from clusterer.runtime.routes import family_of
from clusterer.services.context import Context

PING_TIMEOUT_S = 0.5
"""A ping without a result after this time has failed."""

TIMEOUT_S = 1.0
"""Time that the connections to all nodes take together, at most."""

_CONNECTING = (0, 115, 36)  # done; EINPROGRESS on Linux, on BSD and macOS


def run(context: Context) -> dict[str, Any]:
    """Connect to all nodes at once; return ``host``, ``tried`` (number of nodes) and ``errors``.

    ``errors``: ``cluster/machine_id`` → error of the connection. A node that an operator took down
    is left out. Raises `StateUnavailable`.
    """
    nodes = [
        node
        for node in all_nodes(context.nodes.views().values())
        if node.protocol == PROTO_BIN and node.state is not State.DOWN
    ]
    errors = ping_all(nodes, TIMEOUT_S)
    return {
        "host": socket.gethostname(),
        "tried": len(nodes),
        "errors": {f"{key.cluster_id}/{number}": text for (key, number), text in errors.items()},
    }


def name_of(node: Node) -> str:
    """Return ``cluster/machine_id``."""
    return f"{node.cluster_id}/{node.machine_id}"


def ping_all(nodes: Iterable[Node], timeout_s: float = PING_TIMEOUT_S) -> Mapping[NodeKey, str]:
    """Connect to the BIN addresses of all ``nodes`` at once.

    Returns the error of each node that did not accept within ``timeout_s`` seconds, by cluster and
    machine_id. 1,000 dead nodes cost one timeout. If this process may not open so many files, the
    nodes take turns. Raises `OSError` if the process cannot open a single file.
    """
    errors: dict[NodeKey, str] = {}
    left = list(nodes)
    while left:
        later = _ping_some(left, timeout_s, errors)
        if len(later) == len(left):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left = later
    return errors


def _ping_some(nodes: Iterable[Node], timeout_s: float, errors: dict[NodeKey, str]) -> list[Node]:
    """Ping as many nodes as there are free descriptors; return the other nodes."""
    with selectors.DefaultSelector() as selector:
        later = [node for node in nodes if not _start(selector, node, errors)]
        deadline = monotonic() + timeout_s
        while selector.get_map() and (left := deadline - monotonic()) > 0:
            for key, _ in selector.select(left):
                _finish(selector, key, errors)
        for key in list(selector.get_map().values()):
            errors[key.data.key] = f"no answer within {timeout_s:g} s"
            _close(selector, key)
    return later


def _start(selector: selectors.BaseSelector, node: Node, errors: dict[NodeKey, str]) -> bool:
    """Start to connect; return False if this process may not open another file now."""
    try:
        sock = socket.socket(family_of(node.host), socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(node.address)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return False
        errors[node.key] = str(error)
        return True
    if code in _CONNECTING:
        selector.register(sock, selectors.EVENT_WRITE, node)
    else:
        sock.close()
        errors[node.key] = os.strerror(code)
    return True


def _finish(
    selector: selectors.BaseSelector,
    key: selectors.SelectorKey,
    errors: dict[NodeKey, str],
) -> None:
    sock = key.fileobj
    assert isinstance(sock, socket.socket)  # noqa: S101  only sockets are registered here
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        errors[key.data.key] = os.strerror(code)
    elif connected_to_itself(sock):
        errors[key.data.key] = SELF_CONNECTED
    _close(selector, key)


def _close(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    selector.unregister(key.fileobj)
    key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered here
