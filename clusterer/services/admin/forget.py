"""An operator has everything deleted that Redis keeps of a machine that is gone for good."""

from __future__ import annotations

from dataclasses import dataclass

from clusterer.errors import ClustererError, InvalidArgument
from clusterer.ids import require_id
from clusterer.provisioning import Machine, machine_of, read_rows, require
from clusterer.services.admin.set_status import require_reason
from clusterer.services.context import Context
from clusterer.store.forgetting import ForgetStore, Traces
from clusterer.store.format import require_format
from clusterer.store.nodes import find_nodes
from clusterer.store.watches import LISTENING_MS

EVENT = "forgotten"


class MachineInUse(ClustererError):
    """A machine that is to be forgotten is a node, alive, or has packets to deliver."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was kept of a machine."""

    machine_id: int
    packets: int
    """Packets that it ever sent, as far as Redis knew."""
    undelivered: int
    """Log entries that some node had not got."""
    alive_s: float | None
    """Seconds since its instance last said that it receives; None if it never did."""
    keys: tuple[str, ...]


def run(
    context: Context,
    machine_id: int,
    *,
    by: str,
    reason: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> Forgotten:
    """Delete what Redis keeps of a machine as sender and as instance; return what that is.

    With ``dry_run`` nothing is deleted. Raises `MachineInUse`, unless ``force``, for a machine
    that is a node in Redis or in the table, an instance that is alive or a sender whose packets
    are not all delivered; `InvalidArgument` where nothing is kept; `StateUnavailable`;
    `ProvisioningError` where the table cannot be read.
    """
    machine_id, reason = require_id("machine_id", machine_id), require_reason(reason)
    require_format(context.settings, context.redis)
    store, now_ms = ForgetStore(context.settings, context.redis), int(context.nodes.now() * 1000)
    traces = store.traces(machine_id)
    if not force and (why := _in_use(context, traces, now_ms)):
        raise MachineInUse(f"machine {machine_id} is not forgotten: {why}; --force forgets it")
    if not traces:
        raise InvalidArgument(f"Redis keeps nothing of machine {machine_id}: nothing to forget")
    if not dry_run:
        if not store.forget(traces, now_ms - LISTENING_MS, force=force):
            raise MachineInUse(f"machine {machine_id} was used meanwhile: stop it, then try again")
        store.note(traces, _event(machine_id, by, reason))
    return Forgotten(
        machine_id,
        traces.packets,
        traces.entries,
        max(0.0, (now_ms - traces.alive_ms) / 1000) if traces.alive_ms else None,
        traces.keys,
    )


def _in_use(context: Context, traces: Traces, now_ms: int) -> str:
    """Return why a machine must not be forgotten, and what to do first; empty if it may be."""
    for key in context.nodes.clusters():
        if traces.machine_id in find_nodes(context.redis, key):
            return f"it is a node of cluster {key}, {_remove(key.cluster_id, traces.machine_id)}"
    rows = [row for row in _rows(context) if row is not None and row[1] == traces.machine_id]
    for found in rows:
        return f"it has a row in the table, {_remove(*found)}"
    if now_ms - traces.alive_ms < LISTENING_MS:
        return "its instance is alive, stop it first"
    if traces.leased:
        return "a worker delivers its packets at this moment, wait until it is done"
    if traces.entries:
        return (
            f"{traces.entries} entries of its log are not delivered to every node, "
            "start `clusterer worker delivery` on its host, or give them up"
        )
    return ""


def _rows(context: Context) -> list[Machine | None]:
    with context.database.connection("read the table") as connection:
        require(connection, context.database.schema)
        return [machine_of(row) for row in read_rows(connection, context.database.schema)]


def _remove(cluster_id: int, machine_id: int) -> str:
    return f"run `clusterer node-remove {cluster_id} {machine_id}` first"


def _event(machine_id: int, by: str, reason: str) -> dict[str, str]:
    return {
        "protocol": "bin",
        "machine_id": str(machine_id),
        "url": "no node",
        "event": EVENT,
        "by": by,
        "reason": reason,
        "before": "absent",
        "after": "absent",
        "no_tries": "0",
        "failed_attempts": "0",
    }
