"""Whatever happens, every packet is accounted for: sent, skipped, lost or still to come."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
import redis

from clusterer import Settings, StateUnavailable, UnknownNode
from clusterer.membership import Condition, Event
from clusterer.membership.paths import gate, observed
from clusterer.services import Context
from clusterer.services.periodic import sweep
from clusterer.services.status import node_list
from clusterer.services.status.traffic import Traffic
from clusterer.store import Cause, keys
from clusterer.store.packets import PacketLog
from clusterer.store.paths import Observation
from tests.support.cluster import CLUSTER, at_rest, delivering, load, node, node_for, numbers
from tests.support.frames import frame
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer
from tests.support.scale import scaled

SEEDS = range(scaled(4, 20))
STEPS = 60
CAUSE = Cause("chaos")
SECOND = CLUSTER._replace(cluster_id=2)


class Chaos:
    """A cluster of six in which node 2 is always well and everything else may break.

    Node 6 comes and goes. Two of them are in a second cluster too, and share the log with it.
    """

    def __init__(self, server: RedisServer, stack: ExitStack, seed: int, backlog: str) -> None:
        self.rng = random.Random(seed)
        self.server = server
        self.stack = stack
        self.settings = Settings(
            redis_url=server.url,
            linger=0.1,
            send_timeout=0.6,
            backlog=backlog,
            log_max_packets=20_000,
        )
        self.context = Context(self.settings)
        self.client = stack.enter_context(server.client())
        self.witness = stack.enter_context(BinReceiver())
        self.victims = [stack.enter_context(BinReceiver(receive_buffer=8192)) for _ in range(3)]
        self.guest = stack.enter_context(BinReceiver())
        self.base: int | None = 0
        """Packets appended before node 6 was added; None if some after that were trimmed."""
        self.came = 0
        """Packets appended before node 6 was added."""
        self.load(guest=True)
        both = [
            node_for(i, r, cluster_id=2) for i, r in enumerate([self.witness, *self.victims], 2)
        ]
        load(self.settings, [node(1, cluster_id=2), *both[:2]], SECOND)
        self.log = PacketLog(self.settings, 1)
        self.appended: list[int] = []
        self.down: set[BinReceiver] = set()
        self.workers: list[ExitStack] = []
        self.did: list[str] = []
        for _ in range(2):
            self.add_worker()

    def load(self, *, guest: bool) -> None:
        """Have node 6 or not; again while others change the cluster meanwhile."""
        others = [node_for(i, r) for i, r in enumerate([self.witness, *self.victims], 2)]
        for _ in range(50):
            with suppress(AssertionError):
                load(self.settings, [node(1), *others, *[node_for(6, self.guest)] * guest])
                return
        raise AssertionError("the cluster changes all the time")

    def appended_now(self, cluster_id: int = 1) -> int:
        return int(self.client.hget(keys.counters(1), f"{cluster_id}:bin") or 0)

    # what goes on

    def send(self, count: int) -> None:
        """Append ``count`` packets; what failed may be in the log or not."""
        first = self.appended[-1] + 1 if self.appended else 0
        wanted = list(range(first, first + count))
        size = self.rng.choice((60, 200, 2000))
        with suppress(StateUnavailable):
            cluster = self.rng.choice((CLUSTER, CLUSTER, SECOND))
            self.log.append(cluster, [frame(n, size=size) for n in wanted])
            self.appended += wanted

    def add_worker(self) -> None:
        worker = ExitStack()
        worker.enter_context(delivering(self.settings, slice_s=self.rng.choice((0.1, 0.5, 60))))
        self.workers.append(worker)

    def command(self, event: Event) -> None:
        with suppress(StateUnavailable, UnknownNode):
            self.context.nodes.command(CLUSTER, self.rng.randrange(3, 6), event, CAUSE)

    def guest_comes_or_goes(self) -> None:
        comes = 6 not in self.context.nodes.view(CLUSTER).nodes
        self.load(guest=comes)
        if comes:
            self.base = self.came = self.appended_now()

    # what goes wrong

    def worker_ends(self) -> None:
        self.workers.pop(0).close()
        self.add_worker()

    def lease_vanishes(self) -> None:
        self.client.delete(keys.lease(1))

    def connections_to_redis_end(self) -> None:
        with suppress(redis.RedisError):
            self.client.client_kill_filter(_type="normal", skipme=True)

    def redis_freezes(self) -> None:
        self.server.pause()
        time.sleep(self.rng.choice((0.2, 0.9, 2.2)))
        self.server.resume()

    def redis_restarts(self) -> None:
        self.server.restart()

    def log_is_trimmed(self) -> None:
        last = int(self.client.hget(keys.counters(1), "sequence") or 0)
        lowest = max(last - self.rng.randrange(2000), 0)
        self.client.xtrim(keys.log(1), minid=str(lowest), approximate=False)
        self.base = None

    def peer_goes_or_comes(self) -> None:
        peer = self.rng.choice(self.victims)
        if peer in self.down:
            self.down.remove(peer)
            peer.start()
        else:
            self.down.add(peer)
            peer.stop(reset=self.rng.random() < 0.5)

    def peer_does(self) -> None:
        peer = self.rng.choice([p for p in self.victims if p not in self.down] or [self.witness])
        acts = (peer.close_connections, peer.reset_connections, peer.pause, peer.resume)
        if peer is not self.witness:
            self.rng.choice(acts)()

    def step(self) -> None:
        """Let one thing happen."""
        often: list[Callable[[], object]] = [
            self.peer_does,
            self.peer_goes_or_comes,
            lambda: self.command(Event.SET_DOWN),
            lambda: self.command(Event.SET_UP),
            lambda: self.send(1),
            lambda: self.send(self.rng.randrange(300)),
            self.guest_comes_or_goes,
            self.path_breaks_or_heals,
            self.path_breaks_or_heals,
            self.other_host_comes_or_goes,
        ]
        seldom = [
            self.worker_ends,
            self.lease_vanishes,
            self.connections_to_redis_end,
            self.redis_freezes,
            self.redis_restarts,
            self.log_is_trimmed,
        ]
        chosen = self.rng.choice(seldom if self.rng.random() < 0.12 else often)
        self.did.append(getattr(chosen, "__name__", ""))
        chosen()

    def other_host_comes_or_goes(self) -> None:
        """Have a prober elsewhere, which says nothing: no failure makes a node not up then."""
        with suppress(redis.RedisError):
            if not self.client.zrem(keys.probers(*CLUSTER), "9"):
                self.client.zadd(keys.probers(*CLUSTER), {"9": self.context.paths.now_ms()})

    def path_breaks_or_heals(self) -> None:
        """Let a check of this host change the record of a path."""
        with suppress(StateUnavailable, KeyError):
            seen = self.context.nodes.view(CLUSTER).nodes[self.rng.randrange(3, 7)]
            known = self.context.paths.records(1)
            before = known.get(seen.destination)
            event = self.rng.choice((Event.SUSPECTED, Event.PROBE_SUCCEEDED))
            if event is Event.SUSPECTED:
                told = Observation(seen, before, event, "chaos", known.now_ms, "chaos")
                self.context.paths.observe(1, [told])
            elif before is not None:
                after = observed(seen, before, event, known.now_ms)
                self.context.paths.change(1, [(seen, before, after, "chaos")])

    # and then all is well again

    def heal(self) -> None:
        if 6 not in self.context.nodes.view(CLUSTER).nodes:
            self.guest_comes_or_goes()
        for peer in self.down:
            peer.start()
        for peer in self.victims:
            peer.resume()

    def traffic(self) -> tuple[Traffic, ...]:
        """Return the traffic, after nodes and paths that are not up were set up again."""
        with suppress(StateUnavailable):
            found = self.context.paths.records(1)
            for key in (CLUSTER, SECOND):
                for one in self.context.nodes.view(key).nodes.values():
                    is_open = gate(one, found.get(one.destination), found.now_ms)
                    if one.condition is not Condition.UP or not is_open:
                        self.context.nodes.command(key, one.machine_id, Event.SET_UP, CAUSE)
            sweep.run(self.context)
            return node_list.run(self.context).traffic
        return ()

    def done(self) -> bool:
        """Whether nothing is under way any more."""
        found = self.traffic()
        return at_rest(self.settings) and bool(found) and all(item.backlog == 0 for item in found)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backlog", ["drop", "replay"])
@pytest.mark.parametrize("seed", SEEDS)
def test_sent_skipped_lost_and_backlog_are_what_was_appended(
    own_redis_server: Callable[[], RedisServer], seed: int, backlog: str
) -> None:
    with ExitStack() as stack:
        chaos = Chaos(own_redis_server(), stack, seed, backlog)
        try:
            chaos.send(1)
            for _ in range(STEPS):
                chaos.step()
                time.sleep(chaos.rng.random() * 0.06)
            chaos.heal()
            wait_until(chaos.done, message="everything delivered or given up")
        finally:
            for worker in chaos.workers:
                worker.close()
        appended = {cluster_id: chaos.appended_now(cluster_id) for cluster_id in (1, 2)}
        found = chaos.traffic()
    assert sum(appended.values()) >= len(chaos.appended)
    pairs = {(item.cluster_id, item.machine_id) for item in found}
    wanted = {(1, machine_id) for machine_id in range(2, 6)}
    if appended[2]:
        wanted |= {(2, 2), (2, 3)}
    guest = {(1, 6)}
    if chaos.came != appended[1]:
        wanted |= guest  # it has no line as long as nothing was appended since it came
    assert wanted <= pairs <= wanted | guest
    for item in found:
        parts = (item.sent, item.skipped, item.lost, item.backlog or 0)
        base = chaos.base if item.machine_id == 6 else 0
        if base is not None:
            total = appended[item.cluster_id] - base
            assert sum(parts) == total, (item, base, chaos.did)
        assert min(parts) >= 0, (item, chaos.did)
    got = list(dict.fromkeys(numbers(chaos.witness)))
    assert not any(c.error for r in (chaos.witness, *chaos.victims) for c in r.connections)
    if not any(item.lost for item in found if item.machine_id == 2):
        assert set(chaos.appended) <= set(got), chaos.did
