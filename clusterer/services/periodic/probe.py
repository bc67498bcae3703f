"""The probe job: has probing nodes checked, re-enables disabled ones, settles recovered ones.

Where a prober on another host than the node's is present, the job opens a round: the probers answer
it, and decide. Else the job itself pings. It also does what a prober may have left undone.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Iterable, Mapping
from time import monotonic

from clusterer.delivery.link import SELF_CONNECTED, connected_to_itself
from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition, Event, Node
from clusterer.services.context import Context
from clusterer.services.periodic import suspected, void_paths
from clusterer.settings import REENABLE_PROBE
from clusterer.store import Cause, ClusterKey
from clusterer.store.due import Observation
from clusterer.store.format import require_format

PING_TIMEOUT_S = 0.5
"""A ping without a result after this time has failed."""

HIDE_S = 2.0
"""Time for which a claimed node is hidden from overlapping jobs: longer than any ping, and short,
because the nodes of a killed job wait for so long."""

BY = Cause("probe")
_CONNECTING = (0, 115, 36)  # done; EINPROGRESS on Linux, on BSD and macOS


def run(context: Context) -> int:
    """Look at every due node; return their number. Raises `StateUnavailable`."""
    require_format(context.settings, context.redis)
    clusters = context.nodes.clusters()
    due = context.due.claim(clusters, HIDE_S)
    to_ping = [node for node in due if _needs_ping(context, node)]
    asked = suspected.ask(context, to_ping)
    errors = ping_all(node for node in to_ping if _key(node) not in asked)
    silent = [n for n in to_ping if n.condition is Condition.DISABLED and _key(n) in errors]
    context.due.postpone([n for n in due if _key(n) in asked or n in silent])
    context.due.conclude(
        _observed(node, errors.get(_key(node), ""))
        for node in due
        if _key(node) not in asked and node not in silent
    )
    suspected.conclude(context, clusters)
    void_paths.run(context)
    return len(due)


def _needs_ping(context: Context, node: Node) -> bool:
    if node.protocol != PROTO_BIN:
        return False
    if node.condition is Condition.DISABLED:
        return context.settings.reenable == REENABLE_PROBE
    return node.condition is Condition.PROBING


def _observed(node: Node, error: str) -> Observation:
    if node.condition is not Condition.PROBING:
        return Observation(node, Event.DURATION_ELAPSED, BY)
    event = Event.PROBE_FAILED if error else Event.PROBE_SUCCEEDED
    return Observation(node, event, Cause(BY.by, error))


def ping_all(
    nodes: Iterable[Node], timeout_s: float = PING_TIMEOUT_S
) -> Mapping[tuple[ClusterKey, int], str]:
    """Connect to the BIN addresses of all ``nodes`` at once.

    Returns the error of each node that did not accept within ``timeout_s`` seconds, by cluster and
    machine_id. 1,000 dead nodes cost one timeout. If this process may not open so many files, the
    nodes take turns. Raises `OSError` if the process cannot open a single file.
    """
    errors: dict[tuple[ClusterKey, int], str] = {}
    left = list(nodes)
    while left:
        later = _ping_some(left, timeout_s, errors)
        if len(later) == len(left):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left = later
    return errors


def _ping_some(
    nodes: Iterable[Node], timeout_s: float, errors: dict[tuple[ClusterKey, int], str]
) -> list[Node]:
    """Ping as many nodes as there are free descriptors; return the other nodes."""
    with selectors.DefaultSelector() as selector:
        later = [node for node in nodes if not _start(selector, node, errors)]
        deadline = monotonic() + timeout_s
        while selector.get_map() and (left := deadline - monotonic()) > 0:
            for key, _ in selector.select(left):
                _finish(selector, key, errors)
        for key in list(selector.get_map().values()):
            errors[_key(key.data)] = f"no answer within {timeout_s:g} s"
            _close(selector, key)
    return later


def _start(
    selector: selectors.BaseSelector, node: Node, errors: dict[tuple[ClusterKey, int], str]
) -> bool:
    """Start to connect; return False if this process may not open another file now."""
    family = socket.AF_INET6 if ":" in node.host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(node.address)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return False
        errors[_key(node)] = str(error)
        return True
    if code in _CONNECTING:
        selector.register(sock, selectors.EVENT_WRITE, node)
    else:
        sock.close()
        errors[_key(node)] = os.strerror(code)
    return True


def _finish(
    selector: selectors.BaseSelector,
    key: selectors.SelectorKey,
    errors: dict[tuple[ClusterKey, int], str],
) -> None:
    sock = key.fileobj
    assert isinstance(sock, socket.socket)  # noqa: S101  only sockets are registered here
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        errors[_key(key.data)] = os.strerror(code)
    elif connected_to_itself(sock):
        errors[_key(key.data)] = SELF_CONNECTED
    _close(selector, key)


def _close(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    selector.unregister(key.fileobj)
    key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered here


def _key(node: Node) -> tuple[ClusterKey, int]:
    return ClusterKey(node.cluster_id, node.protocol), node.machine_id
