"""One instance of the demo: makes ratelimit traffic and says, as JSON lines, what it sees.

Run as ``python -m clusterer.cli.demo.instance CHECKS_PER_SECOND``; settings come from the
environment. A user of the public API like any other.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from clusterer.api import Clusterer
from clusterer.cli.node import ratelimit_of, serve_until
from clusterer.cli.options import configure_logging
from clusterer.errors import ClustererError
from clusterer.ids import PROTO_BIN
from clusterer.modules.ratelimit import Algorithm, RateLimit
from clusterer.processes import stop_on_signals

CLUSTER = 1
PIPE = "calls"
LIMIT = 1000
INTERVAL_S = 2.0
"""Length of the pipes' counting interval: short, because the last whole one is replicated."""

MODULE = "demo"
STAMPED = 1
"""Packet type of our own: its one field is the CLOCK_MONOTONIC time of sending, in ns as text.
That clock is the same for all processes of a machine."""

_REPORT_EVERY_S = 0.1
_STAMP_EVERY_S = 0.2

Job = tuple[float, Callable[[], object]]
"""Interval in seconds, and what to do then."""


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    configure_logging("WARNING")
    try:
        return _run(checks_per_s=float(sys.argv[1]))
    except ClustererError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(checks_per_s: float) -> int:
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        instance = stack.enter_context(Clusterer())
        instance.register_module(MODULE, PROTO_BIN, _received(instance), 0, True, CLUSTER)
        ratelimit = ratelimit_of(instance, instance.settings, timer_interval=INTERVAL_S)
        assert ratelimit is not None  # noqa: S101 - the demo's settings ask for it
        stack.callback(ratelimit.stop)
        jobs: list[Job] = [
            (1 / checks_per_s, lambda: ratelimit.check(PIPE, LIMIT, Algorithm.TAILDROP)),
            (_STAMP_EVERY_S, lambda: _send_stamp(instance)),
            (_REPORT_EVERY_S, lambda: _report(instance, ratelimit)),
        ]
        _in_thread(lambda: _begin(instance, ratelimit, jobs))
        serve_until(stop, instance)
    return 0


def _begin(instance: Clusterer, ratelimit: RateLimit, jobs: list[Job]) -> None:
    """Do nothing before we can be reached, then each job again and again, at its interval."""
    instance.listener.ready.wait()
    ratelimit.start()
    for seconds, job in jobs:
        _in_thread(lambda seconds=seconds, job=job: _repeat(seconds, job))  # type: ignore[misc]


def _repeat(seconds: float, job: Callable[[], object]) -> None:
    while True:
        try:
            job()
        except ClustererError as error:  # Redis is away, say: the next time it may be back
            sys.stderr.write(f"{error}\n")
        time.sleep(seconds)


def _in_thread(do: Callable[[], None]) -> None:
    threading.Thread(target=do, daemon=True).start()


def _send_stamp(instance: Clusterer) -> None:
    packet = instance.packet(MODULE, STAMPED)
    instance.send_to(CLUSTER, PROTO_BIN, packet.push_str(str(time.monotonic_ns())).build())


def _received(instance: Clusterer) -> Callable[[int, Any, int], None]:
    def callback(packet_type: int, receive_info: Any, machine_id: int) -> None:
        now = time.monotonic_ns()
        if packet_type != STAMPED:
            return
        sent = int(receive_info.packet.fields().pop_str() or b"0")
        _say(instance, {"from": machine_id, "sent_ns": sent, "took_ms": (now - sent) / 1e6})

    return callback


def _report(instance: Clusterer, ratelimit: RateLimit) -> None:
    pipe = ratelimit.pipes().get(PIPE)
    remote = {} if pipe is None else dict(pipe.remote)
    nodes = [node.machine_id for node in instance.get_nodes(CLUSTER, PROTO_BIN)]
    own = 0 if pipe is None else pipe.last_counter
    _say(instance, {"own": own, "remote": remote, "nodes": nodes})


def _say(instance: Clusterer, what: dict[str, Any]) -> None:
    # One write each: several threads speak.
    sys.stdout.write(json.dumps({"machine": instance.get_my_id()} | what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
