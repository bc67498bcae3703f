"""Actions on one node: set status, add, edit, remove."""

from __future__ import annotations

from collections.abc import Mapping

from clusterer.console.actions.action import Action, Field, Form, Given, is_number
from clusterer.console.console import Console
from clusterer.console.page import NODE_PATH, NotFound, Parameters
from clusterer.errors import InvalidArgument
from clusterer.membership import Condition, Node, State
from clusterer.provisioning.rows import RowKey
from clusterer.services import provision
from clusterer.services.admin import set_status
from clusterer.services.provision import WIDTH, Changes
from clusterer.store import ClusterKey

_STATUS = Field("status", "Status", "choice", choices=(("0", "down"), ("1", "up")))
_URL = Field("url", "URL", about="protocol:host:port, such as bin:192.0.2.3:5566", most=WIDTH)
_FAILED_ATTEMPTS = Field(
    "failed_attempts", "Failed attempts", "number", "Failed attempts that disable the node"
)
_DURATION = Field("duration", "Duration", "number", "Seconds that the node stays disabled")
_DESCRIPTION = Field("description", "Description", most=WIDTH, required=False)
_COLUMNS = (_URL, _FAILED_ATTEMPTS, _DURATION, _DESCRIPTION)


def _place(parameters: Parameters) -> RowKey:
    return parameters["cluster_id"], parameters["machine_id"]


def _node(console: Console, parameters: Parameters) -> Node:
    cluster_id, machine_id = _place(parameters)
    node, _ = console.context.nodes.read(ClusterKey(cluster_id, parameters["proto"]), machine_id)
    if node is None:
        raise NotFound(f"cluster {cluster_id} has no node {machine_id}")
    return node


def _status_form(console: Console, parameters: Parameters) -> Form:
    node = _node(console, parameters)
    down = node.state is State.DOWN
    fact = f"Node {node.machine_id} of cluster {node.cluster_id} ({node.url}) is "
    fact += f"{node.condition.value}{': an operator has set it down' if down else ''}."
    return Form({"status": "1" if down else "0"}, (fact,), {"condition": node.condition.value})


def _set_status(console: Console, parameters: Parameters, given: Given) -> tuple[str, ...]:
    status = given.values["status"]
    if status not in ("0", "1"):
        raise InvalidArgument(f"status must be 0 (down) or 1 (up), not {status!r}")
    seen = _condition(given.seen.get("condition"))
    cluster_id, machine_id = _place(parameters)
    name = f"node {machine_id} of cluster {cluster_id}"
    if given.dry_run:
        set_status.require_seen(_node(console, parameters), seen)
        if status == "0":
            return (f"Set {name} down: senders skip the node until an operator sets it up.",)
        return (f"Set {name} up: all senders try to reach the node again.",)
    node = set_status.run(
        console.context,
        cluster_id,
        machine_id,
        int(status),
        parameters["proto"],
        by=given.by,
        reason=given.reason,
        seen=seen,
    )
    return (f"{name.capitalize()} is {node.condition.value}.",)


def _condition(text: str | None) -> Condition | None:
    try:
        return Condition(text) if text else None
    except ValueError:
        raise InvalidArgument(f"condition: {text!r} is no condition of a node") from None


def _edit_form(console: Console, parameters: Parameters) -> Form:
    row = provision.row(console.context, _place(parameters))
    values = {field.name: row[field.name] for field in _COLUMNS}
    return Form(values, (), values)


def _edit(console: Console, parameters: Parameters, given: Given) -> tuple[str, ...]:
    changes = provision.edit(
        console.context,
        _place(parameters),
        _values(given.values),
        by=given.by,
        reason=given.reason,
        seen={name: given.seen[name] for name in given.values if name in given.seen},
        dry_run=given.dry_run,
    )
    return _words(changes, dry_run=given.dry_run)


def _remove_form(console: Console, parameters: Parameters) -> Form:
    row = provision.row(console.context, _place(parameters))
    fact = f"Node {row['machine_id']} of cluster {row['cluster_id']} has the URL {row['url']}."
    if row["description"]:
        fact += f" Its description: {row['description']}."
    return Form({}, (fact,), {field.name: row[field.name] for field in _COLUMNS})


def _remove(console: Console, parameters: Parameters, given: Given) -> tuple[str, ...]:
    columns = {field.name for field in _COLUMNS}
    changes = provision.remove(
        console.context,
        _place(parameters),
        by=given.by,
        reason=given.reason,
        seen={name: value for name, value in given.seen.items() if name in columns},
        dry_run=given.dry_run,
    )
    lost = "Packets that the node has not received are deleted with the node."
    return (*_words(changes, dry_run=given.dry_run), *((lost,) if given.dry_run else ()))


def _add_form(_console: Console, _parameters: Parameters) -> Form:
    defaults = {name: str(value) for name, value in provision.DEFAULTS.items()}
    return Form({"cluster_id": "1", "machine_id": "", "url": ""} | defaults)


def _add(console: Console, _parameters: Parameters, given: Given) -> tuple[str, ...]:
    changes = provision.add(
        console.context,
        _values(given.values),
        by=given.by,
        reason=given.reason,
        dry_run=given.dry_run,
    )
    return _words(changes, dry_run=given.dry_run)


def _values(given: Mapping[str, str]) -> dict[str, object]:
    """Return the values of columns; a text that is no number stays, and is rejected as one."""
    numbers = ("cluster_id", "machine_id", "failed_attempts", "duration", "state")
    return {
        name: int(text) if name in numbers and is_number(text) else text
        for name, text in given.items()
    }


def _words(changes: Changes, *, dry_run: bool) -> tuple[str, ...]:
    added, changed, removed = ("Add", "Change", "Remove") if dry_run else _DONE
    where = f"table {changes.table} in {changes.database}"
    found = [f"{added} in {where}: {item.name}." for item in changes.added]
    found += [
        f"{changed} in {where}: {item.name} ({item.differences})." for item in changes.changed
    ]
    found += [f"{removed} from {where}: {item.name}." for item in changes.removed]
    if not found:
        found = [f"Nothing changes in {where}: the row has these values already."]
    return tuple(found)


_DONE = ("Added", "Changed", "Removed")

STATUS = Action(
    "status",
    f"{NODE_PATH}/status",
    "Set the status of node {machine_id}",
    "Set status",
    _status_form,
    _set_status,
    NODE_PATH,
    (_STATUS,),
    needed=("status",),
)
EDIT = Action(
    "edit",
    f"{NODE_PATH}/edit",
    "Edit node {machine_id}",
    "Change",
    _edit_form,
    _edit,
    NODE_PATH,
    _COLUMNS,
)
REMOVE = Action(
    "remove",
    f"{NODE_PATH}/remove",
    "Remove node {machine_id}",
    "Remove",
    _remove_form,
    _remove,
    "/overview",
    danger=True,
)
ADD = Action(
    "add",
    "/clusters/add",
    "Add a node",
    "Add",
    _add_form,
    _add,
    "/overview",
    (
        Field("cluster_id", "Cluster", "number"),
        Field("machine_id", "machine_id", "number"),
        *_COLUMNS,
        Field("state", "State", "choice", choices=(("1", "up"), ("0", "down"))),
    ),
    needed=("cluster_id", "machine_id", "url"),
)
