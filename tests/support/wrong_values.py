"""A cluster of which every process part runs, and values in its Redis that cannot be used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import redis

from clusterer import Clusterer
from clusterer.console.feed import Feed
from clusterer.errors import ClustererError
from clusterer.membership import Event
from clusterer.mi.commands import ListNodes
from clusterer.provisioning.table import NewRow
from clusterer.services import Context, doctor
from clusterer.services.admin.event_feed import EventFeed, EventFilter
from clusterer.services.admin.events import Filter, History, of_nodes, of_paths
from clusterer.services.admin.mi_commands import MiCommands
from clusterer.services.live import Reader
from clusterer.services.metrics import ClusterCollector
from clusterer.services.periodic import history, probe, sweep, sync, timeouts
from clusterer.services.status import broken_paths, node_list
from clusterer.services.table import reload
from clusterer.settings import Settings
from clusterer.store import Cause, ClusterKey, keys
from clusterer.store.audit import AuditEvent
from clusterer.store.badvalues import collected
from clusterer.store.key_types import HASH, LIST, SET, SORTED_SET, STREAM, STRING, expected_type
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.provisioning import provision
from tests.support.redis_server import RedisServer

KEY, OTHER = ClusterKey(1, "bin"), ClusterKey(2, "bin")
QUEUE = "clusterer:delivery"
MODULE = "m"

BESIDE = (
    keys.CLUSTERS,
    keys.LOADED,
    keys.nodes(*KEY),
    keys.version(*KEY),
    keys.due(*KEY),
    keys.dirty(*KEY),
    keys.synced(*KEY),
    keys.events(1),
)
"""Keys that a reload writes, but for the nodes' hashes."""

NODE = keys.node(*KEY, 3)

RECEIVING = (
    keys.INSTANCES,
    keys.REGISTRATIONS,
    keys.last_seen(1, MODULE, 1),
    keys.muted(1, MODULE, 1),
    keys.modules(1),
    keys.notices(1),
    keys.capture(1),
)

SENDING = (
    keys.QUEUES,
    keys.SENDERS,
    keys.HANDOVERS,
    keys.log(1),
    keys.counters(1),
    keys.committed(1),
    keys.committed_count(1),
    keys.lease(1),
    keys.closing(1),
    keys.stats(1),
    keys.pending(QUEUE),
    keys.waiting(QUEUE),
    keys.enqueued(QUEUE),
    keys.ring(QUEUE),
    keys.shares(QUEUE),
)

PATHS = (
    keys.PATHS,
    keys.paths(1),
    keys.suspicions(*KEY),
    keys.confirmed(*KEY),
    keys.probers(*KEY),
    keys.probers_ring(*KEY),
    keys.path_events(1),
    keys.prober(1),
    keys.prober_ring(1),
)

CONSOLE = (keys.history(*KEY, 2), keys.listings(1), keys.inquiries(1), keys.links(1))

ALL = (*BESIDE, NODE, *RECEIVING, *SENDING, *PATHS, *CONSOLE)


def put_wrong_type(client: redis.Redis, key: str) -> None:
    """Have ``key`` hold another type than it has to."""
    with client.pipeline() as pipe:  # in one step: an instance whose key is gone writes it again
        pipe.delete(key)
        if expected_type(key) == HASH:
            pipe.rpush(key, "oops")
        else:
            pipe.hset(key, "oops", "oops")
        pipe.execute()


def put_wrong_value(client: redis.Redis, key: str) -> None:
    """Have ``key`` hold, beside what it has, something that cannot be there."""
    kind = expected_type(key)
    if kind == STRING:
        client.set(key, b"oops\xff")
    elif kind == SET:
        client.sadd(key, "oops", b"\xff", "-1", "0")
    elif kind == SORTED_SET:
        scores: dict[Any, float] = {"oops": 1.0, b"\xff": 2.0, "-1": -inf, "3": inf}
        client.zadd(key, scores)
    elif kind == STREAM:
        client.xadd(key, {"oops": b"\xff"})
    elif kind == LIST:
        client.rpush(key, b"oops\xff")
    else:
        assert kind == HASH
        client.hset(key, b"oops\xff:1/x", "oops")
        for field in client.hkeys(key):
            client.hset(key, field, "oops")


def put_back(client: redis.Redis, key: str, dumped: bytes | None) -> None:
    """Have ``key`` hold what `dump` gave before."""
    client.delete(key)
    if dumped is not None:
        client.restore(key, 0, dumped, replace=True)


@dataclass
class Everything:
    """All processes of a system."""

    context: Context
    instance: Clusterer
    reader: Reader
    collector: ClusterCollector
    history: History[AuditEvent]
    client: redis.Redis

    def jobs(self) -> dict[str, Callable[[], Any]]:
        """Every job and command, by name."""
        context = self.context
        return {
            "probe": lambda: probe.run(context),
            "timeouts": lambda: timeouts.run(context),
            "sweep": lambda: sweep.run(context),
            "sync": lambda: sync.run(context),
            "list": lambda: node_list.as_json(node_list.run(context)),
            "top": self.reader.read,
            "paths": lambda: broken_paths.run(context, broken_paths.Filter()),
            "events": lambda: self.history.past(20),
            "events --paths": lambda: of_paths(context, Filter()).past(20),
            "metrics": lambda: list(self.collector.collect()),
            "mi": lambda: MiCommands(context, "test").run(ListNodes(), "test"),
            "doctor": lambda: list(doctor.run(context)),
            "reload --dry-run": lambda: reload.preview(context),
            "history": lambda: history.run(context),
            "console": self.console,
        }

    def console(self) -> tuple[object, ...]:
        """What the pages of the console show, as they begin to read it."""
        feed, events = Feed(self.context), EventFeed(self.context)
        moment = feed.now()
        found = self.context.nodes.read(KEY, 2)[0]
        pairs = found and feed.pairs(moment, found)
        return moment, pairs, feed.processes(), feed.histories(KEY, [2]), events.view(EventFilter())

    def heartbeat(self) -> bytes | str | None:
        """Time of the instance's last heartbeat."""
        with suppress(redis.ResponseError):
            return self.client.hget(keys.modules(1), "heartbeat")
        return None

    def sees(self, key: ClusterKey, machine_id: int, *, up: bool) -> bool:
        """Whether the instance knows the state of a node."""
        found = [node.machine_id for node in self.instance.get_nodes(*key)]
        return (machine_id in found) is up

    def set_up(self, key: ClusterKey, machine_id: int, *, up: bool) -> None:
        """Set a node up or down, as an operator does."""
        event = Event.SET_UP if up else Event.SET_DOWN
        self.context.nodes.command(key, machine_id, event, Cause("test"))


@contextmanager
def _everything_on(url: str, database: str, client: redis.Redis) -> Iterator[Everything]:
    """Run an instance with a module in a thread; jobs and commands are run by the test.

    Cluster 1 has the nodes 1 (the instance), 2 (up), 3 (temporarily disabled, and due) and 4
    (likewise); cluster 2 has 1 and 5.
    """
    settings = Settings(
        redis_url=url, db_url=database, server_id=1, persistent_mode=True, delivery_queue=QUEUE
    )
    context = Context(settings)
    rows = [NewRow(1, i, f"bin:127.0.0.1:{free_port()}") for i in (1, 2, 3, 4)]
    rows += [NewRow(2, i, f"bin:127.0.0.1:{free_port()}") for i in (1, 5)]
    provision(context, *rows)
    reload.run(context)
    for _ in range(3):
        for machine_id in (3, 4):
            context.nodes.command(KEY, machine_id, Event.SUSPECTED, Cause("test"))
    events = of_nodes(context, Filter())
    node = context.nodes.read(KEY, 2)[0]
    assert node is not None
    # A worker has counted packets of this pair, and delivered none: only the log has the backlog.
    client.hset(keys.stats(1), f"{node.destination}/skipped", 1)
    with Clusterer(settings=settings) as instance:
        instance.register_module(MODULE, "bin", lambda *_: None, 60, True, 1)
        thread = threading.Thread(target=instance.serve, daemon=True)
        thread.start()
        assert instance.listener.ready.wait(EVENTUALLY_S)
        instance.send_to(1, "bin", instance.packet(MODULE, 1).build())
        running = Everything(
            context, instance, Reader(context), ClusterCollector(context), events, client
        )
        wait_until(running.heartbeat, message="the instance has told that it listens")
        for job in running.jobs().values():
            job()
        try:
            yield running
        finally:
            instance.stop()
            thread.join(EVENTUALLY_S)
            context.close()


@contextmanager
def everything(directory: Path) -> Iterator[Everything]:
    """Run everything with a Redis and a database that no other test uses."""
    database = f"sqlite:///{directory / 'nodes.db'}"
    with (
        RedisServer() as server,
        server.client() as client,
        _everything_on(server.url, database, client) as found,
    ):
        yield found


class broken:  # noqa: N801 - reads as a word of the `with` statement
    """Put something wrong into a key, run everything, and put it right again.

    Gives the keys that were named. No job may fail. All that does not depend on the key has to go
    on, and that key's part too, once it is right.
    """

    def __init__(
        self, running: Everything, key: str, put: Callable[[redis.Redis, str], None]
    ) -> None:
        self._running, self._key, self._put = running, key, put
        self._dumped: bytes | None = None

    def __enter__(self) -> set[str]:
        running, key = self._running, self._key
        self._dumped = running.client.dump(key)
        self._put(running.client, key)
        with collected() as found:
            said = [str(job()) for job in running.jobs().values()]
            with suppress(ClustererError):
                running.instance.send_to(1, "bin", running.instance.packet("m", 1).build())
        self._see_changes(OTHER, 5)
        if key != keys.modules(1):
            self._see_flushes()
        named = {bad.key for bad in found}
        return named | ({key} if any(key in text for text in said) else set())

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        running = self._running
        put_back(running.client, self._key, self._dumped)
        if error is None:
            self._see_changes(KEY, 2)
            self._see_flushes()
            for job in running.jobs().values():
                job()

    def _see_changes(self, key: ClusterKey, machine_id: int) -> None:
        running = self._running
        up = not running.sees(key, machine_id, up=True)
        running.set_up(key, machine_id, up=up)
        wait_until(lambda: running.sees(key, machine_id, up=up), message=f"node {machine_id}: {up}")

    def _see_flushes(self) -> None:
        before = self._running.heartbeat()
        wait_until(lambda: self._running.heartbeat() != before, message="the instance flushes")
