"""Brings Redis in line with the table: reads clusters for the planner, and commits its plans."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from clusterer.ids import PROTO_BIN
from clusterer.membership import Node
from clusterer.membership.columns import StateColumns
from clusterer.membership.reload_plan import ReloadPlan
from clusterer.membership.repairs import Repairs
from clusterer.membership.views import ClusterKey
from clusterer.store import keys
from clusterer.store.badvalues import batches, flat, ids, read_all, shortened
from clusterer.store.client import translated
from clusterer.store.deliveries import forget
from clusterer.store.encoding import encode_node
from clusterer.store.format import require_format
from clusterer.store.node_change import EVENTS_CAP, Cause, audit_fields, due_ms
from clusterer.store.paths import PathStore, counters_of
from clusterer.store.reload_read import ReloadReads, cluster_keys, prober_keys
from clusterer.store.scripts import script

_SCRIPT_NODES = 500
"""Nodes changed by one script call, some 10 ms of Redis's time. A larger cluster takes several
calls and is then not replaced in one step."""

_PIPELINED_SENDERS = 100
"""Senders per round trip from which destinations are deleted."""

_PIPELINED_STEPS = 50
"""Script calls sent at once."""


class ReloadStore(ReloadReads):
    """Reads clusters for the planner and commits its plans."""

    def mend_clusters(self, clusters: Sequence[ClusterKey]) -> None:
        """Replace the set of clusters: the key has a wrong type, or other members."""
        with translated(self._settings, "repair the set of clusters"):
            pipe = self._client.pipeline(transaction=True)
            pipe.delete(keys.CLUSTERS)
            if clusters:
                pipe.sadd(keys.CLUSTERS, *map(str, clusters))
            pipe.execute()

    def note_loaded(self, now: float, by: str) -> None:
        """Note that Redis has the whole table; ``now``: UNIX time in seconds, from Redis."""
        with translated(self._settings, "note the reload"):
            self._client.set(keys.LOADED, f"{int(now * 1000)} {by}")

    def claim_restore(self, for_s: int) -> bool:
        """Return True if Redis has no node and no reload, and the caller must load the table.

        Every other caller gets False for ``for_s`` seconds.
        """
        with translated(self._settings, "read the time of the last reload"):
            if any(read_all(self._client, [("exists", keys.LOADED), ("scard", keys.CLUSTERS)])):
                return False
            return bool(self._client.set(keys.LOADED, "restoring", nx=True, ex=for_s))

    def commit(self, plans: Iterable[ReloadPlan], now: float, cause: Cause) -> set[ClusterKey]:
        """Carry out the plans; return the clusters that changed since the planner read them.

        ``now``: UNIX time in seconds, from Redis. A cluster with up to `_SCRIPT_NODES` changes
        changes in one step or, on conflict, not at all.
        """
        require_format(self._settings, self._client)
        versions = {plan.key: plan.version for plan in plans}
        steps = {plan.key: self._steps(plan, now, cause) for plan in plans}
        conflicts: set[ClusterKey] = set()
        with translated(self._settings, "reload the clusters"):
            self._client.script_load(script("reload").text)
            # Each round sends the next step of every cluster: a step needs the version that the
            # previous step returned.
            while due := {key: step for key in steps if (step := next(steps[key], None))}:
                for key, version in self._send(due, versions).items():
                    versions[key] = version
                    if version < 0:
                        conflicts.add(key)
                        del steps[key]
                done = [step for key, step in due.items() if key in steps]
                self._forget([field for step in done for field in step.gone])
                self._delete([name for step in done for name in step.histories])
        return conflicts

    def _delete(self, names: Sequence[str]) -> None:
        if names:
            self._client.unlink(*names)

    def _forget(self, fields: Sequence[str]) -> None:
        """Delete the fields of deleted destinations from the hashes of all senders."""
        if not fields:
            return
        self._forget_paths(fields)
        (members,) = read_all(self._client, [("smembers", keys.SENDERS)])
        for batch in batches(ids(keys.SENDERS, members), _PIPELINED_SENDERS):
            pipe = self._client.pipeline(transaction=False)
            for sender in batch:
                forget(pipe, sender, fields)
            pipe.execute()

    def _forget_paths(self, fields: Sequence[str]) -> None:
        """Delete the path records of destinations that are there no more."""
        (data,) = read_all(self._client, [("hgetall", keys.PATHS)])
        for sender in counters_of(data):
            PathStore(self._settings, self._client).forget(sender, fields)

    def _send(
        self, steps: Mapping[ClusterKey, _Step], versions: Mapping[ClusterKey, int]
    ) -> dict[ClusterKey, int]:
        lua = script("reload")
        replies: dict[ClusterKey, int] = {}
        for batch in batches(steps.items(), _PIPELINED_STEPS):
            pipe = self._client.pipeline(transaction=False)
            for key, step in batch:
                names = [*cluster_keys(key), *prober_keys(key), *step.hashes]
                document = step.document(key, versions[key])
                pipe.evalsha(lua.sha, len(names), *names, document, *step.strangers)
            replies |= zip((key for key, _ in batch), pipe.execute(), strict=True)
        return replies

    def _steps(self, plan: ReloadPlan, now: float, cause: Cause) -> Iterator[_Step]:
        """Split what a plan does into script calls of bounded size."""
        actions = self._actions(plan, now, cause)
        repairs = plan.repairs
        while (batch := list(islice(actions, _SCRIPT_NODES))) or repairs:
            step = _Step()
            if repairs:
                step.repair(repairs, [self._due(node, now) for node in repairs.due])
                repairs = Repairs()
            for kind, node, item in batch:
                step.add(kind, node, item)
                if kind == "remove":
                    step.histories.append(
                        keys.history(node.cluster_id, node.protocol, node.machine_id)
                    )
                left = kind == "remove" or (item.get("added") and node.generation)
                if left and node.protocol == PROTO_BIN:  # no other node is a destination
                    step.gone.append(node.destination)
            yield step

    def _actions(
        self, plan: ReloadPlan, now: float, cause: Cause
    ) -> Iterator[tuple[str, Node, dict[str, Any]]]:
        for node in plan.removed:
            yield "remove", node, {"event": flat(audit_fields(node, None, "removed", cause))}
        for node in plan.added:
            event = flat(audit_fields(None, node, "added", cause))
            yield "put", node, self._put(plan, node, now, event, new_address=True)
        for change in plan.changed:
            why = replace(cause, reason=cause.reason or change.reason)
            event = flat(audit_fields(change.before, change.after, "changed", why))
            item = self._put(plan, change.after, now, event, new_address=change.readdressed)
            item["epoch"] = change.readdressed or change.is_tried_again
            yield "put", change.after, item | {"keep": change.kept}
        for node in plan.noted:
            yield "mark", node, {"synced": str(StateColumns.of(node))}

    def _put(
        self, plan: ReloadPlan, node: Node, now: float, event: list[str], *, new_address: bool
    ) -> dict[str, Any]:
        return {
            "added": new_address,
            "epoch": new_address,
            "due": self._due(node, now),
            "synced": str(plan.table[node.machine_id]),
            "fields": flat(encode_node(node)),
            "event": event,
        }

    def _due(self, node: Node, now: float) -> str:
        return str(due_ms(node, now, self._settings.probe_interval))


class _Step:
    """The changes of one call of the script."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.gone: list[str] = []
        """Destinations that the call deletes."""
        self.histories: list[str] = []
        """Keys of the samples of nodes that the call deletes."""
        self.strangers: list[bytes | str] = []
        """Pairs: index of a key in the call, and a bad member of that key."""
        self._items: dict[str, list[Any]] = {
            "put": [],
            "remove": [],
            "mark": [],
            "drop": [],
            "join": [],
            "due": [],
        }
        self._version = ""
        self._repairs = False

    def add(self, kind: str, node: Node, item: dict[str, Any]) -> None:
        item["machine_id"] = str(node.machine_id)
        if kind != "mark":
            self.hashes.append(keys.node(node.cluster_id, node.protocol, node.machine_id))
            item["key"] = _CLUSTER_KEYS + len(self.hashes)
        self._items[kind].append(item)

    def repair(self, repairs: Repairs, due: Sequence[str]) -> None:
        places = {name: str(at) for at, name in enumerate(cluster_keys(repairs.key), 1)}
        for name, member in repairs.strangers:
            self.strangers += (places[name], member)
        for machine_id in repairs.dropped:
            self.hashes.append(keys.node(*repairs.key, machine_id))
            item = {"machine_id": str(machine_id), "key": _CLUSTER_KEYS + len(self.hashes)}
            self._items["drop"].append(item)
        self._items["join"] = [str(machine_id) for machine_id in repairs.joined]
        self._items["due"] = [
            [at, str(node.machine_id)] for node, at in zip(repairs.due, due, strict=True)
        ]
        self._version = str(repairs.version or "")
        self._repairs = True

    def document(self, key: ClusterKey, expected: int) -> str:
        head = {
            "name": str(key),
            "expected": str(expected),
            "cap": EVENTS_CAP,
            "version": self._version,
            "repairs": self._repairs,
        }
        return json.dumps(head | self._items)


_CLUSTER_KEYS = 11
"""Number of the cluster's keys, which come before the keys of the nodes."""


CLUSTERS_MENDED = f"key {keys.CLUSTERS}: made again"
"""Line for the repair by `ReloadStore.mend_clusters`."""


def described(repairs: Repairs) -> Iterator[str]:
    """Yield a line for each repair."""
    key = repairs.key
    node_keys = (keys.node(*key, machine_id) for machine_id in repairs.dropped)
    yield from (f"key {name}: held another type, deleted" for name in repairs.wrong)
    yield from (f"key {name}: {shortened(found)} removed" for name, found in repairs.strangers)
    yield from (f"key {keys.nodes(*key)}: {machine_id} added" for machine_id in repairs.joined)
    yield from (f"key {name}: remains of a node, deleted" for name in node_keys)
    yield from (f"key {keys.synced(*key)}: {machine_id} added" for machine_id in repairs.noted)
    yield from (f"key {keys.due(*key)}: time of {n.machine_id} set" for n in repairs.due)
    if repairs.version:
        yield f"key {keys.version(*key)}: set again"
    if repairs.listed:
        yield f"key {keys.CLUSTERS}: {key} corrected"
