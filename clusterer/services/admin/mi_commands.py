"""Carries out MI commands; the transports (FIFO, datagram, HTTP) get a result or an error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from clusterer.errors import ClustererError, InvalidArgument, StateUnavailable, UnknownNode
from clusterer.ids import require_id
from clusterer.membership import Condition, Node
from clusterer.membership.paths import as_seen
from clusterer.membership.views import all_nodes
from clusterer.mi.commands import (
    Command,
    Listed,
    ListedCluster,
    ListedNode,
    ListNodes,
    MiError,
    Ok,
    Reload,
    Result,
    SetStatus,
    Which,
)
from clusterer.mi.requests import tell
from clusterer.runtime.logs import about, about_machine_id
from clusterer.services.admin import set_status
from clusterer.services.context import Context
from clusterer.services.table import reload
from clusterer.services.table.reload_report import log_faults
from clusterer.store import ClusterKey

log = logging.getLogger(__name__)

_LINK_STATES = {Condition.UP: "Up", Condition.PROBING: "Probe"}
"""OpenSIPS 3's words; every other condition is ``Down``."""

_LOOK_UP_S = 0.2
"""Longest wait for data that only a log line needs."""

_THREADS = 4
"""Commands that run at once: a reload that waits for its database leaves room for others."""


class MiCommands:
    """Carries out commands for one instance, in threads: Redis and SQL block."""

    def __init__(self, context: Context, by: str) -> None:
        """``by``: name of this server in the audit. The settings must have a server_id."""
        self._context = context
        self._server_id = require_id("server_id", context.settings.server_id)
        self._by = by
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="clusterer-mi")

    async def handle(self, command: Command, via: str) -> Result | MiError:
        """Carry out ``command`` and return its result; ``via``: transport, for the audit."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.run, command, via)

    async def about(self, command: Command) -> dict[str, object]:
        """Return the fields of a log line about the node of ``command``; none without a node.

        If Redis does not answer at once, the fields are those of the command.
        """
        if not isinstance(command, SetStatus):
            return {}
        loop, key = asyncio.get_running_loop(), ClusterKey(command.cluster_id, command.protocol)
        with contextlib.suppress(StateUnavailable, TimeoutError):
            async with asyncio.timeout(_LOOK_UP_S):
                node, _ = await loop.run_in_executor(
                    self._threads, self._context.nodes.read, key, command.machine_id
                )
                if node:
                    return about(node)
        return _named(command)

    def close(self) -> None:
        """Take no more commands, and wait for those that run: they still need Redis."""
        self._threads.shutdown(cancel_futures=True)

    def run(self, command: Command, via: str) -> Result | MiError:
        """Carry out ``command`` in this thread. Never raises."""
        try:
            return self._run(command, f"{self._by} ({via})")
        except MiError as error:
            return error
        except UnknownNode as error:
            return MiError(404, "No such node", str(error))
        except InvalidArgument as error:
            return MiError(400, "Bad parameter", str(error))
        except ClustererError as error:
            log.error("%s: command failed: %s", via, error, extra=_named(command))
            return MiError(500, str(error))
        except Exception:
            log.exception("%s: command failed: %s", via, command, extra=_named(command))
            return MiError(500, "Internal error", "the instance's log contains the traceback")

    def _run(self, command: Command, by: str) -> Result:
        if isinstance(command, SetStatus):
            return self._set_status(command, by)
        if isinstance(command, Reload):
            return self._reload(by)
        if isinstance(command, Which):
            return tell(command)
        return self._list(command)

    def _set_status(self, command: SetStatus, by: str) -> Ok:
        if command.machine_id == self._server_id:
            raise MiError(404, "No such node", "MI does not set the instance's own node")
        set_status.run(
            self._context,
            command.cluster_id,
            command.machine_id,
            command.status,
            command.protocol,
            by=by,
        )
        return Ok()

    def _reload(self, by: str) -> Ok:
        try:
            report = reload.run(self._context, by=by)
        except ClustererError as error:
            log.error("reload: failed: %s", error)
            raise MiError(500, "Failed to reload", str(error)) from error
        log_faults(report)
        return Ok()

    def _list(self, command: ListNodes) -> Listed:
        """List the peers in the order of OpenSIPS 2.2, with the states that the instance sees.

        OpenSIPS 2.2 inserts each row at the head of its lists: the last row comes first, in
        clusters, protocols and nodes. The list has no cluster without a peer.
        """
        views = self._context.nodes.views().values()
        records = self._context.paths.records(self._server_id)
        own = {view.key.cluster_id for view in views if self._server_id in view.nodes}
        clusters: dict[int, dict[str, list[ListedNode]]] = {}
        for node in sorted(all_nodes(views), key=lambda node: node.id):
            if node.cluster_id in own and node.machine_id != self._server_id:
                protocols = clusters.setdefault(node.cluster_id, {})
                protocols.setdefault(node.protocol, []).append(
                    _listed(as_seen(node, records.get(node.destination), records.now_ms))
                )
        return Listed(
            tuple(
                ListedCluster(cluster_id, _newest_first(protocols.values()))
                for cluster_id, protocols in reversed(clusters.items())
            )
        )


def _named(command: Command) -> dict[str, object]:
    """Return the fields of a log line that the command itself has."""
    if not isinstance(command, SetStatus):
        return {}
    return about_machine_id(
        command.machine_id, (), cluster=command.cluster_id, protocol=command.protocol
    )


def _newest_first(protocols: Collection[list[ListedNode]]) -> tuple[ListedNode, ...]:
    return tuple(node for nodes in reversed(list(protocols)) for node in reversed(nodes))


def _listed(node: Node) -> ListedNode:
    return ListedNode(
        node_id=node.machine_id,
        db_id=node.id,
        url=node.url,
        state=int(node.state),
        last_failed_attempt=node.last_attempt,
        max_failed_attempts=node.failed_attempts,
        no_tries=node.no_tries,
        seconds_until_enabling=node.duration,
        description=node.description or "none",
        link_state=_LINK_STATES.get(node.condition, "Down"),
        next_hop=str(node.machine_id) if node.condition is Condition.UP else "none",
    )
