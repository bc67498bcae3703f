"""The check of the backlog: senders whose packets wait for seconds, and the workers they lack."""

from __future__ import annotations

from collections.abc import Iterator

from clusterer.jobs import resume_command
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok, warn
from clusterer.services.live.node_rows import BEHIND_S
from clusterer.services.status import fleet, node_list
from clusterer.settings import BACKLOG_REPLAY

CHECK = "backlog"

ERROR_S = 30.0


def check(context: Context) -> Iterator[Finding]:
    """Check every sender; yield one finding if no sender is late."""
    states = context.backlog.queues()
    queue_of = {sender: s.queue for s in states for sender in (*s.pending, *s.waiting)}
    orphaned = {sender for state in states for sender in state.orphaned}
    found = node_list.sender_backlogs(node_list.run(context, pairs=False, kept=False))
    late = [item for item in found if item.packets and item.oldest_s >= BEHIND_S]
    for item in late:
        queue = queue_of.get(item.sender, context.settings.delivery_queue)
        text = (
            f"sender {item.sender}: {item.packets} packets wait, the oldest for "
            f"{item.oldest_s:.0f} s"
        )
        if item.sender in orphaned and fleet.suspension(context) is not None:
            advice = f"RQ is suspended: run `{resume_command(context.settings)}`"
        elif item.sender in orphaned:
            advice = (
                f"no worker of {queue} delivers its log: run `clusterer worker delivery` on the "
                f"host of node {item.sender}, or correct the node's url; if the node is gone for "
                f"good: `clusterer forget {item.sender} --force`"
            )
        else:
            advice = "`clusterer list` shows the node that is behind; the node reads too slowly"
        yield (error if item.oldest_s >= ERROR_S else warn)(CHECK, text, advice)
    if not late:
        total, oldest_s = sum(i.packets for i in found), max((i.oldest_s for i in found), default=0)
        text = (
            f"{total} packets wait, the oldest for {oldest_s:.1f} s" if total else "no packet waits"
        )
        kept = sum(item.waiting for item in found)
        if kept and context.settings.backlog == BACKLOG_REPLAY:
            text += f"; {kept} packets wait for nodes that are not up"
        yield ok(CHECK, text)
