"""Deletes the data that Redis keeps of a machine_id that is no longer used."""

from __future__ import annotations

from dataclasses import dataclass

from clusterer.errors import ClustererError, InvalidArgument
from clusterer.ids import require_id
from clusterer.provisioning.rows import row_key_of
from clusterer.services.admin.set_status import require_reason
from clusterer.services.context import Context
from clusterer.services.table.reload import rows
from clusterer.store.forgetting import ForgetStore, Traces
from clusterer.store.format import require_format
from clusterer.store.nodes import find_nodes
from clusterer.store.watches import LISTENING_MS

EVENT = "forgotten"


class MachineInUse(ClustererError):
    """The machine_id to delete has a node, an instance that is alive, or packets to deliver."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The data that Redis kept of a machine_id."""

    machine_id: int
    packets: int
    """Packets that the sender ever sent, as far as Redis knew."""
    undelivered: int
    """Entries of the log that a node had not received."""
    alive_s: float | None
    """Seconds since the instance's last heartbeat; None if there never was one."""
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
    """Delete the data that Redis keeps of a machine_id as sender and as instance; return it.

    With ``dry_run`` nothing is deleted. Raises `MachineInUse`, unless ``force``, for the
    machine_id of a node in Redis or in the table, of an instance that is alive, or of a sender
    whose packets are not all delivered; `InvalidArgument` if Redis has no data of it;
    `StateUnavailable`; `ProvisioningError` if the table cannot be read.
    """
    machine_id, reason = require_id("machine_id", machine_id), require_reason(reason)
    require_format(context.settings, context.redis)
    store, now_ms = ForgetStore(context.settings, context.redis), int(context.nodes.now() * 1000)
    traces = store.traces(machine_id)
    if not force and (why := _in_use(context, traces, now_ms)):
        raise MachineInUse(f"machine_id {machine_id} is in use: {why}; --force deletes its data")
    if not traces:
        raise InvalidArgument(f"Redis has no data of machine_id {machine_id}")
    if not dry_run:
        if not store.forget(traces, now_ms - LISTENING_MS, force=force):
            raise MachineInUse(
                f"machine_id {machine_id} is in use again: stop the instance, then try again"
            )
        store.note(traces, _event(machine_id, by, reason))
    return Forgotten(
        machine_id,
        traces.packets,
        traces.entries,
        max(0.0, (now_ms - traces.alive_ms) / 1000) if traces.alive_ms else None,
        traces.keys,
    )


def _in_use(context: Context, traces: Traces, now_ms: int) -> str:
    """Return the use of a machine_id, and the operator's first action; empty if it is unused."""
    for key in context.nodes.clusters():
        if traces.machine_id in find_nodes(context.redis, key):
            return f"cluster {key} has the node, {_remove(key.cluster_id, traces.machine_id)}"
    for found in map(row_key_of, rows(context)):
        if found is not None and found[1] == traces.machine_id:
            return f"the table has a row of the node, {_remove(*found)}"
    if now_ms - traces.alive_ms < LISTENING_MS:
        return "the instance is alive, stop the instance first"
    if traces.leased:
        return "a worker delivers the sender's packets now, wait for the end of the delivery"
    if traces.entries:
        return (
            f"{traces.entries} entries of the sender's log are not delivered to every node, "
            "start `clusterer worker delivery` on the sender's host"
        )
    return ""


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
