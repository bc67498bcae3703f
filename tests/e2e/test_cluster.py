"""The whole system as real processes: instances, workers, scheduler, Redis, MariaDB."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pymysql
import pytest
import redis
from sqlalchemy.engine import make_url

from clusterer import Clusterer, ReceiveInfo, Settings
from clusterer.membership import Condition
from clusterer.services import Context
from clusterer.services.table import init_db, reload
from clusterer.settings import as_environment
from clusterer.store import ClusterKey, keys
from clusterer.wire import Packet
from tests.support.instance import ANSWER, ASK, MODULE
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, ChildProcess, spawn, wait_until
from tests.support.receiver import BinReceiver

CLUSTER = ClusterKey(1, "bin")


@dataclass
class System:
    """Settings, and the processes started with them."""

    settings: Settings
    stack: ExitStack
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(self.settings)
        self.stack.callback(self.context.close)

    def process(self, *args: str, **changes: object) -> ChildProcess:
        env = as_environment(self.settings) | {
            f"CLUSTERER_{name.upper()}": str(value) for name, value in changes.items()
        }
        return self.stack.enter_context(spawn(["-m", *args], env))

    def start_workers(self, *kinds: str) -> list[ChildProcess]:
        return [self.process("workers", kind) for kind in kinds]

    def sql(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        url = make_url(self.settings.db_url)
        connection = pymysql.connect(
            host=url.host,
            port=url.port or 3306,
            user=url.username,
            password=url.password or "",
            database=url.database,
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def provision(self, *rows: tuple[int, int, str, int, int]) -> None:
        """Insert (cluster, machine, url, failed_attempts, duration) and reload."""
        for row in rows:
            self.sql(
                "INSERT INTO clusterer (cluster_id, machine_id, url, failed_attempts, duration) "
                "VALUES (%s, %s, %s, %s, %s)",
                row,
            )
        reload.run(self.context)

    def condition(self, machine_id: int) -> Condition:
        node, _ = self.context.nodes.read(CLUSTER, machine_id)
        assert node is not None
        return node.condition

    def instance(self) -> Clusterer:
        """Return node 1 as an instance in this process."""
        return Clusterer(settings=self.settings)

    @contextmanager
    def serving(self, instance: Clusterer) -> Iterator[Clusterer]:
        thread = threading.Thread(target=instance.serve)
        thread.start()
        try:
            assert instance.listener.ready.wait(EVENTUALLY_S)
            yield instance
        finally:
            instance.close()
            thread.join(EVENTUALLY_S)
            assert not thread.is_alive()


@pytest.fixture
def system(redis_client: redis.Redis, redis_url: str, mariadb_url: str) -> Iterator[System]:
    with ExitStack() as stack:
        settings = Settings(
            redis_url=redis_url, db_url=mariadb_url, server_id=1, linger=1.0, send_timeout=1.0
        )
        made = System(settings, stack)
        init_db.run(made.context)
        yield made


@dataclass
class Inbox:
    """The packets and notices that a callback received."""

    got: list[tuple[int, int, int | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        number = info.packet.fields().pop_int() if info else None
        self.got.append((kind, machine_id, number))
        self.times.append(time.monotonic())

    def numbers(self, kind: int) -> list[int | None]:
        return [number for got, _, number in self.got if got == kind]


def printed(process: ChildProcess) -> list[Mapping[str, int]]:
    return [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]


def two_nodes(system: System, **changes: object) -> ChildProcess:
    port_a, port_b = free_port("127.0.0.1"), free_port("127.0.0.2")
    system.provision(
        (1, 1, f"bin:127.0.0.1:{port_a}", 3, 3), (1, 2, f"bin:127.0.0.2:{port_b}", 3, 3)
    )
    child = system.process("tests.support.instance", "0", server_id=2, **changes)
    child.wait_for_output("serving")
    wait_until(lambda: f"{port_b}" in child.output(), message="B listens")
    return child


def test_packets_travel_both_ways_between_two_instances(system: System) -> None:
    child = two_nodes(system)
    system.start_workers("delivery")
    inbox = Inbox()
    instance = system.instance()
    instance.register_module(MODULE, "bin", inbox, 0, True, 1)
    with system.serving(instance):
        for number in range(100):
            packet = instance.packet(MODULE, ASK).push_int(number).build()
            assert instance.send_to(1, "bin", packet) == 1
        wait_until(lambda: len(inbox.got) >= 100, message="answers from B")
    assert [line["n"] for line in printed(child)] == list(range(100))
    assert inbox.numbers(ANSWER) == list(range(100))


def test_node_killed_is_probed_disabled_and_up_again(
    system: System,
) -> None:
    with BinReceiver("127.0.0.2") as alive, BinReceiver("127.0.0.3") as dead:
        dead.stop()
        system.provision(
            (1, 1, f"bin:127.0.0.1:{free_port('127.0.0.1')}", 3, 3),
            (1, 2, f"bin:127.0.0.2:{alive.port}", 3, 3),
            (1, 3, f"bin:127.0.0.3:{dead.port}", 2, 3),
        )
        system.start_workers("delivery", "maintenance")
        system.process("scheduler")
        with system.instance() as instance:
            packet = instance.packet(MODULE, ASK).push_int(1).build()
            for _ in range(50):
                instance.send_to(1, "bin", packet)
            alive.wait_for_frames(50)
            wait_until(lambda: system.condition(3) is Condition.DISABLED, message="disabled")
            dead.start()
            wait_until(lambda: system.condition(3) is Condition.UP, message="up again")
            wait_until(lambda: instance.send_to(1, "bin", packet) == 2, message="both up")
            dead.wait_for_frames(1)


def test_delivery_worker_killed_loses_nothing(system: System) -> None:
    with BinReceiver("127.0.0.2") as receiver:
        system.provision(
            (1, 1, f"bin:127.0.0.1:{free_port('127.0.0.1')}", 3, 3),
            (1, 2, f"bin:127.0.0.2:{receiver.port}", 3, 3),
        )
        first, second = system.start_workers("delivery", "delivery")
        system.start_workers("maintenance")
        system.process("scheduler")
        with system.instance() as instance:

            def packet(number: int) -> Packet:
                return instance.packet(MODULE, ASK).push_int(number).build()

            for number in range(2000):
                instance.send_to(1, "bin", packet(number))
            receiver.wait_for_frames(100)
            token = str(
                wait_until(lambda: system.context.redis.get(keys.lease(1)), message="leased")
            )
            holder = next(p for p in (first, second) if f":{p.pid}:" in token)
            holder.kill()
            killed_at = time.monotonic()
            before = receiver.frame_count
            instance.send_many(1, "bin", [packet(number) for number in range(2000, 5000)])
            wait_until(lambda: receiver.frame_count > before + 500, message="delivery goes on")
            resumed_after = time.monotonic() - killed_at
            everything = set(range(5000))
            wait_until(
                lambda: everything <= {p.fields().pop_int() for p in receiver.packets},
                message="all 5,000",
            )
    assert resumed_after < 4.0 + LATE_S, "3 s, and the sending of what is waited for"
    assert receiver.frame_count - 5000 <= 1000, "duplicates are bounded by two batches"


def test_node_silent_is_announced_muted_and_heard_again(system: System) -> None:
    child = two_nodes(system)
    system.start_workers("delivery", "maintenance")
    system.process("scheduler")
    inbox = Inbox()
    instance = system.instance()
    with system.serving(instance):
        instance.register_module(MODULE, "bin", inbox, 2, True, 1)
        packet = instance.packet(MODULE, ASK).push_int(7).build()
        instance.send_to(1, "bin", packet)
        wait_until(lambda: (ANSWER, 2, 7) in inbox.got, message="heard for the first time")
        started = time.monotonic()
        inbox.got.clear()
        inbox.times.clear()
        wait_until(lambda: inbox.got, message="SERVER_TIMEOUT")
        assert inbox.got[0] == (-2, 2, None)
        assert 2.0 <= inbox.times[0] - started <= 5.0 + LATE_S
        instance.send_to(1, "bin", packet)
        wait_until(lambda: (-1, 2, 7) in inbox.got, message="dropped and notified")
        assert ANSWER not in {kind for kind, _, _ in inbox.got}
        wait_until(lambda: time.monotonic() - inbox.times[0] > 4.2, message="silence over")
        instance.send_to(1, "bin", packet)
        wait_until(lambda: (ANSWER, 2, 7) in inbox.got, message="heard again")
    assert system.condition(2) is Condition.UP
    assert len(printed(child)) == 3


def test_persistent_mode_writes_states_within_two_seconds(system: System) -> None:
    object.__setattr__(system.settings, "persistent_mode", True)
    port = free_port("127.0.0.2")
    system.provision(
        (1, 1, f"bin:127.0.0.1:{free_port('127.0.0.1')}", 3, 3),
        (1, 2, f"bin:127.0.0.2:{port}", 2, 60),
    )
    system.start_workers("delivery", "maintenance", "database")
    system.process("scheduler")
    with system.instance() as instance:
        instance.send_to(1, "bin", instance.packet(MODULE, ASK).build())
        wait_until(lambda: system.condition(2) is Condition.DISABLED, message="disabled")
        changed_at = time.monotonic()
        query = "SELECT state, no_tries, last_attempt FROM clusterer WHERE machine_id = 2"
        row = wait_until(
            lambda: r if (r := system.sql(query)[0])[:2] == (2, 2) else None, message="row written"
        )
        assert time.monotonic() - changed_at <= 2.5 + LATE_S
        assert abs(int(str(row[2])) - time.time()) < 10


@pytest.mark.parametrize("persistent", [False, True])
def test_reload_keeps_local_changes_in_persistent_mode_only(
    system: System, persistent: bool
) -> None:
    object.__setattr__(system.settings, "persistent_mode", persistent)
    two_nodes(system)
    with system.instance() as instance:
        instance.set_state(1, 2, 0, "bin")
        assert instance.get_nodes(1, "bin") == []
        reload.run(system.context)
        assert system.condition(2) is (Condition.DOWN if persistent else Condition.UP)
        wait_until(lambda: bool(instance.get_nodes(1, "bin")) is not persistent, message="snapshot")
