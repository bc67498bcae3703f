"""One instance of the demo: makes ratelimit traffic, and reports its observations as JSON lines.

Run as ``python -m clusterer.cli.demo.instance TICKS``: one ratelimit check every so many ticks.
Settings come from the environment. The instance uses the public API like any application.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from clusterer.api import Clusterer
from clusterer.cli.node import ratelimit_of, serve_until
from clusterer.cli.options import configure_logging
from clusterer.errors import ClustererError
from clusterer.ids import PROTO_BIN
from clusterer.modules.ratelimit import Algorithm, RateLimit
from clusterer.runtime.stop import stop_on_signals

CLUSTER = 1
PIPE = "calls"
LIMIT = 1000
INTERVAL_S = 2.0
"""Counting interval of the pipes: short, because the last whole interval is replicated."""

MODULE = "demo"
STAMPED = 1
"""Packet type of the demo: its one field is the CLOCK_MONOTONIC time of sending, in ns as text.
All processes of a host share this clock."""

_TICK_S = 1 / 30
_STAMP_TICKS = 6
_REPORT_TICKS = 3


@dataclass(frozen=True, slots=True)
class Report:
    """One line of an instance; machine_ids that are keys in JSON are text."""

    machine_id: int
    own: int = 0
    """Checks of the instance in the last whole interval."""
    remote: Mapping[str, int] = field(default_factory=dict)
    """Checks of other nodes in the instance's pipe, by machine_id."""
    nodes: tuple[int, ...] = ()
    """The machine_ids that get_nodes returns."""
    newest: Mapping[str, int] = field(default_factory=dict)
    """Time at which a node sent its newest packet (CLOCK_MONOTONIC, ns), by machine_id."""
    took_ms: tuple[float, ...] = ()
    """Latencies of the packets received since the last report."""


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    configure_logging("WARNING")
    try:
        _run(check_ticks=int(sys.argv[1]))
    except ClustererError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _run(check_ticks: int) -> None:
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        instance = stack.enter_context(Clusterer())
        ratelimit = ratelimit_of(instance, instance.settings, timer_interval=INTERVAL_S)
        assert ratelimit is not None  # noqa: S101 - the demo's settings ask for it
        stack.callback(ratelimit.stop)
        traffic = Traffic(instance, ratelimit, check_ticks)
        threading.Thread(target=traffic.run, daemon=True).start()
        serve_until(stop, instance)


class Traffic:
    """Makes the checks, the stamped packets and the reports of the instance."""

    def __init__(self, instance: Clusterer, ratelimit: RateLimit, check_ticks: int) -> None:
        self._instance = instance
        self._ratelimit = ratelimit
        self._check_ticks = check_ticks
        self._newest: dict[str, int] = {}
        self._took_ms: list[float] = []
        instance.register_module(MODULE, PROTO_BIN, self._receive, 0, True, CLUSTER)

    def run(self) -> None:
        """Wait until the instance listens, then work tick by tick."""
        self._instance.listener.ready.wait()
        self._ratelimit.start()
        for tick in itertools.count():
            try:
                self._work(tick)
            except ClustererError as error:  # such as Redis unavailable: the next tick tries again
                sys.stderr.write(f"{error}\n")
            time.sleep(_TICK_S)

    def _work(self, tick: int) -> None:
        if tick % self._check_ticks == 0:
            self._ratelimit.check(PIPE, LIMIT, Algorithm.TAILDROP)
        if tick % _STAMP_TICKS == 0:
            stamp = self._instance.packet(MODULE, STAMPED).push_str(str(time.monotonic_ns()))
            self._instance.send_to(CLUSTER, PROTO_BIN, stamp.build())
        if tick % _REPORT_TICKS == 0:
            sys.stdout.write(json.dumps(asdict(self._report())) + "\n")
            sys.stdout.flush()

    def _receive(self, packet_type: int, receive_info: Any, machine_id: int) -> None:
        now = time.monotonic_ns()
        if packet_type == STAMPED:
            sent = int(receive_info.packet.fields().pop_str() or b"0")
            self._newest[str(machine_id)] = sent
            self._took_ms.append((now - sent) / 1e6)

    def _report(self) -> Report:
        took_ms, self._took_ms = self._took_ms, []
        pipe = self._ratelimit.pipes().get(PIPE)
        nodes = self._instance.get_nodes(CLUSTER, PROTO_BIN)
        return Report(
            self._instance.get_my_id(),
            pipe.last_counter if pipe else 0,
            {str(sender): count for sender, count in pipe.remote.items()} if pipe else {},
            tuple(node.machine_id for node in nodes),
            self._newest.copy(),
            tuple(took_ms),
        )


if __name__ == "__main__":
    sys.exit(main())
