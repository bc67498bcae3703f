"""Actions on all clusters: reload the table, forget a machine_id."""

from __future__ import annotations

from clusterer.console.actions.action import Action, Field, Form, Given, is_number
from clusterer.console.console import Console
from clusterer.console.page import Parameters
from clusterer.errors import InvalidArgument
from clusterer.services.admin import forget
from clusterer.services.table import reload
from clusterer.services.table.reload_report import described


def _reload_form(_console: Console, _parameters: Parameters) -> Form:
    fact = "A reload replaces the nodes in Redis by those of the table. The next page shows each "
    return Form({}, (fact + "difference; nothing changes before you confirm.",))


def _reload(console: Console, _parameters: Parameters, given: Given) -> tuple[str, ...]:
    if given.dry_run:
        return tuple(described(reload.preview(console.context), dry_run=True))
    report = reload.run(console.context, by=given.by, reason=given.reason)
    return tuple(described(report))


def _forget_form(_console: Console, _parameters: Parameters) -> Form:
    fact = "Deletes what Redis keeps of a machine_id that is no longer used. A machine_id with a "
    return Form({"machine_id": ""}, (fact + "node, an instance or waiting packets is refused.",))


def _forget(console: Console, _parameters: Parameters, given: Given) -> tuple[str, ...]:
    text = given.values["machine_id"]
    if not is_number(text):
        raise InvalidArgument(f"machine_id: {text!r} is no whole number")
    found = forget.run(
        console.context, int(text), by=given.by, reason=given.reason, dry_run=given.dry_run
    )
    what = f"the data of machine_id {found.machine_id} in Redis: {len(found.keys)} keys"
    return (f"{'Delete' if given.dry_run else 'Deleted'} {what}.", *found.keys)


RELOAD = Action(
    "reload", "/reload", "Reload the table", "Reload", _reload_form, _reload, "/overview"
)
FORGET = Action(
    "forget",
    "/forget",
    "Forget a machine_id",
    "Forget",
    _forget_form,
    _forget,
    "/overview",
    (Field("machine_id", "machine_id", "number"),),
    needed=("machine_id",),
    danger=True,
)
