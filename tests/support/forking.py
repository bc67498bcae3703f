"""A program that forks while its threads use an instance. Prints what came of it, as JSON.

Arguments: URL of Redis, number of forks.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from itertools import count

from clusterer import PROTO_BIN, BufferFull, Clusterer, Settings
from clusterer.modules.dialog import Dialogs
from clusterer.modules.ratelimit import Algorithm, RateLimit
from clusterer.payloads import ProfileCount, ProfileCounts
from clusterer.runtime.logs import LimitedLog, configure
from tests.support.fake_cluster import FakeCluster
from tests.support.forked import in_child

log = logging.getLogger("tests.forking")


class Program:
    """Everything that promises to work after a fork, used by a thread each."""

    def __init__(self, redis_url: str) -> None:
        settings = Settings(redis_url=redis_url, server_id=1, metrics_port=1)
        self.cluster = Clusterer(settings=settings)
        self.packet = self.cluster.packet("test", 1).push_str("x" * 100).build()
        self.limits = RateLimit(self.cluster, replicate_pipes_to=1)
        self.fake = FakeCluster()
        self.dialogs = Dialogs(self.fake, 1)
        self.limited = LimitedLog(log, 0.001)
        self.names = count()
        self.sent = [0, 0, 0]
        self.errors: list[str] = []

    def uses(self) -> list[Callable[[], object]]:
        """Return one call of each part; the first three send a packet."""
        cluster, limits = self.cluster, self.limits
        counts = ProfileCounts((ProfileCount(b"p%d" % (next(self.names) % 9), None, 1),))
        packet = counts.encode(2)
        return [
            lambda: cluster.send_to(1, PROTO_BIN, self.packet),
            self.post,
            lambda: cluster.send_many(1, PROTO_BIN, [self.packet]),
            lambda: cluster.get_nodes(1, PROTO_BIN),
            lambda: cluster.check(1, ("127.0.0.2", 1), 2, PROTO_BIN),
            lambda: cluster.set_state(1, 3, 1, PROTO_BIN),
            lambda: limits.check(f"pipe {next(self.names) % 500}", 5, Algorithm.TAILDROP),
            lambda: limits.check("load", 50, Algorithm.FEEDBACK),
            limits.pipes,
            limits.sample,
            lambda: self.fake.deliver(packet),
            self.dialogs.expire,
            lambda: self.limited.warning("key", time.monotonic(), "said now and then"),
            lambda: log.warning("flood"),
            lambda: list(cluster.offers),
        ]

    def post(self) -> None:
        """Post a packet, no faster than Redis takes them."""
        try:
            self.cluster.post(1, PROTO_BIN, self.packet)
        except BufferFull:
            self.cluster.flush(1)

    def work(self, number: int) -> None:
        """Use one part for ever."""
        use = self.uses()[number]
        while True:
            try:
                use()
            except Exception as error:  # noqa: BLE001 - reported
                self.errors.append(f"{number}: {error!r}")
            if number < len(self.sent):
                self.sent[number] += 1
            elif random.random() < 0.2:
                time.sleep(0.001)  # the others' turn: busy threads alone would be all that runs

    def child(self) -> bool:
        """Use every part once, and end as a service would."""
        for use in self.uses():
            use()
        self.limits.start()
        self.limits.stop()
        self.dialogs.start()
        self.dialogs.stop()
        self.cluster.close()
        return True

    def run(self, rounds: int) -> dict[str, object]:
        """Fork ``rounds`` times; return what the children did."""
        self.limits.start()
        self.dialogs.start()
        for number in range(len(self.uses())):
            threading.Thread(target=self.work, args=(number,), daemon=True).start()
        codes = [in_child(self.child) for _ in range(rounds)]
        before = sum(self.sent)
        time.sleep(1)
        return {
            "hung": codes.count(None),
            "failed": [code for code in codes if code],
            "errors": self.errors[:5],
            "sends after": sum(self.sent) - before,
        }


if __name__ == "__main__":
    import faulthandler

    faulthandler.enable()
    configure(Settings(), "forking")
    done = Program(sys.argv[1]).run(int(sys.argv[2]))
    print(json.dumps(done), flush=True)
    os._exit(0)
