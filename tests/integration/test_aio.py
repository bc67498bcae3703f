"""`clusterer.aio.Clusterer`: the functions as coroutines, tasks that share round trips, serving."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest
import redis

from clusterer import (
    PROTO_BIN,
    Clusterer,
    FrameTooLarge,
    InvalidArgument,
    ReceiveInfo,
    Settings,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
    aio,
)
from clusterer.store import ClusterKey, keys
from tests.support.cluster import load, node
from tests.support.forked import in_child
from tests.support.frames import frame
from tests.support.listening import Recorded, peer
from tests.support.posted import LONG_S, logged
from tests.support.redis_server import RedisServer

R = TypeVar("R")


def run(main: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asyncio.wait_for(main, 100))


def numbered(cluster: aio.Clusterer, number: int) -> Any:
    return cluster.packet("test", 1).push_int(number).build()


def provisioned(url: str) -> Settings:
    settings = Settings(redis_url=url)
    load(settings, [node(1), node(2), node(3)])
    second = [node(1, cluster_id=2), node(4, cluster_id=2)]
    load(settings, second, ClusterKey(2, "bin"))
    return settings


@contextlib.asynccontextmanager
async def instance(settings: Settings) -> AsyncIterator[aio.Clusterer]:
    async with aio.Clusterer(1, settings=settings) as made:
        yield made


def scripts_run(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_aio_functions_answer_as_the_blocking_ones(redis_url: str) -> None:
    settings = provisioned(redis_url)

    async def main() -> None:
        async with instance(settings) as cluster:
            nodes = await cluster.get_nodes(1, PROTO_BIN)
            assert [each.machine_id for each in nodes] == [2, 3]
            await cluster.free_nodes(nodes)
            assert nodes == []
            assert await cluster.get_my_id() == 1
            assert await cluster.check(1, ("127.0.0.1", 9), 2, PROTO_BIN) == 1
            assert await cluster.check(1, ("127.0.0.9", 9), 2, PROTO_BIN) == 0
            await cluster.set_state(1, 3, 0, PROTO_BIN)
            assert len(await cluster.reachable_nodes(1, PROTO_BIN)) == 1
            assert await cluster.send_to(1, PROTO_BIN, numbered(cluster, 1)) == 1
            assert await cluster.send_many(1, PROTO_BIN, [numbered(cluster, 2)] * 2) == 1
            assert await cluster.post(1, PROTO_BIN, numbered(cluster, 3)) == 1
            assert await cluster.flush(LONG_S)
            assert await cluster.flush(0)
            assert 0 <= cluster.snapshot_age_s() < 100
            assert [n.machine_id for n in cluster.blocking.get_nodes(1, PROTO_BIN)] == [2]
            assert cluster.sender.counts.posted == 1

    run(main())


def test_aio_has_every_function_of_the_blocking_face() -> None:
    ours = {name for name in dir(aio.Clusterer) if not name.startswith("_")}
    others = {name for name in dir(Clusterer) if not name.startswith("_")}
    assert others <= ours
    assert ours - others == {"blocking", "renew_in_child"}


def test_aio_tasks_share_round_trips_and_keep_order(
    redis_url: str, redis_client: redis.Redis
) -> None:
    settings = provisioned(redis_url)

    async def main() -> None:
        async with instance(settings) as cluster:
            await cluster.send_to(1, PROTO_BIN, numbered(cluster, 0))

            async def work(task: int) -> None:
                for turn in range(20):
                    packet = numbered(cluster, task * 100 + turn)
                    if turn % 3:
                        await cluster.send_to(1, PROTO_BIN, packet)
                    else:
                        await cluster.post(1, PROTO_BIN, packet)

            await asyncio.gather(*(work(task) for task in range(1, 101)))
            assert await cluster.flush(LONG_S)

    before = scripts_run(redis_client)
    run(main())
    assert scripts_run(redis_client) - before < 1000, "for 2,000 packets"
    found = logged(redis_client)[1:]
    assert len(found) == 2000
    for task in range(1, 101):
        own = [number for number in found if number // 100 == task]
        assert own == [task * 100 + turn for turn in range(20)]


def test_aio_errors_reach_their_own_task(redis_url: str, redis_client: redis.Redis) -> None:
    settings = provisioned(redis_url)

    async def main() -> None:
        async with instance(settings) as cluster:
            await cluster.send_to(1, PROTO_BIN, numbered(cluster, 0))
            redis_client.hset(keys.counters(1), "2:bin", "no number")
            packet = numbered(cluster, 1)
            large = packet._replace(payload=b"x" * 70_000)
            results = await asyncio.gather(
                *(
                    cluster.send_to(cluster_id, PROTO_BIN, sent)
                    for cluster_id, sent in [(1, packet), (2, packet), (9, packet), (1, large)] * 5
                ),
                return_exceptions=True,
            )
            for at in range(0, 20, 4):
                fine, wrong, unknown, too_large = results[at : at + 4]
                assert fine == 2
                assert isinstance(wrong, StateUnavailable)
                assert "counters" in str(wrong) or "doctor" in str(wrong)
                assert isinstance(unknown, UnknownCluster)
                assert isinstance(too_large, FrameTooLarge)
            assert len({id(error) for error in results[1::4]}) == 5, "each task has its own"
            with pytest.raises(UnknownNode):
                await cluster.set_state(1, 9, 0, PROTO_BIN)
            with pytest.raises(InvalidArgument):
                await cluster.get_nodes(1, "")

    run(main())


def test_aio_cancelled_send_leaves_others(own_redis_server: Callable[[], RedisServer]) -> None:
    server = own_redis_server()
    settings = provisioned(f"{server.url}?socket_timeout=60")

    async def main() -> None:
        async with instance(settings) as cluster:
            await cluster.send_to(1, PROTO_BIN, numbered(cluster, 0))
            server.pause()
            try:
                tasks = [
                    asyncio.create_task(cluster.send_to(1, PROTO_BIN, numbered(cluster, number)))
                    for number in range(1, 7)
                ]
                await asyncio.sleep(0.1)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.wait(tasks[::2], timeout=LONG_S)
                assert not results[1]
                assert all(task.cancelled() for task in tasks[::2])
            finally:
                server.resume()
            assert await asyncio.gather(*tasks[1::2]) == [2, 2, 2]
            assert await cluster.send_to(1, PROTO_BIN, numbered(cluster, 7)) == 2

    run(main())
    with server.client() as client:
        found = logged(client)
    assert set(found) >= {0, 2, 4, 6, 7}
    assert found == sorted(found)


def test_aio_loop_runs_on_while_redis_is_stopped(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    settings = provisioned(server.url)

    async def main() -> None:
        async with instance(settings) as cluster:
            await cluster.send_to(1, PROTO_BIN, numbered(cluster, 0))
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.02)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            server.pause()
            try:
                for call in (
                    cluster.send_to(1, PROTO_BIN, numbered(cluster, 1)),
                    cluster.set_state(1, 3, 1, PROTO_BIN),
                    cluster.send_to(9, PROTO_BIN, numbered(cluster, 2)),
                ):
                    before = ticks
                    with pytest.raises(StateUnavailable):
                        await call
                    assert ticks - before > 5, "each takes a second or more"
                assert await cluster.post(1, PROTO_BIN, numbered(cluster, 3)) == 2
                assert len(await cluster.get_nodes(1, PROTO_BIN)) == 2
                before = ticks
                assert not await cluster.flush(1)
                assert ticks - before > 5
            finally:
                server.resume()
            assert await cluster.flush(LONG_S)
            ticking.cancel()

    run(main())
    with server.client() as client:
        assert 3 in logged(client)


def test_aio_without_redis_from_the_start(own_redis_server: Callable[[], RedisServer]) -> None:
    server = own_redis_server()
    settings = provisioned(server.url)
    server.stop()

    async def main() -> None:
        async with instance(settings) as cluster:
            with pytest.raises(StateUnavailable):
                await cluster.get_nodes(1, PROTO_BIN)
            assert await cluster.post(1, PROTO_BIN, numbered(cluster, 1)) == 0
            server.start()  # by the main thread: Redis ends with the thread that started it
            assert await cluster.flush(LONG_S)
            assert len(await cluster.get_nodes(1, PROTO_BIN)) == 2

    run(main())
    with server.client() as client:
        assert logged(client) == [1]


def test_aio_close_sends_what_was_posted(redis_url: str, redis_client: redis.Redis) -> None:
    settings = provisioned(redis_url)
    cluster = aio.Clusterer(1, settings=settings)

    async def main(first: int) -> None:
        async with cluster:
            for number in range(first, first + 100):
                await cluster.post(1, PROTO_BIN, numbered(cluster, number))
            await cluster.send_to(1, PROTO_BIN, numbered(cluster, first + 100))
            await cluster.post(1, PROTO_BIN, numbered(cluster, first + 101))

    run(main(0))
    run(main(102))  # in another event loop
    assert logged(redis_client) == list(range(204))


def test_aio_in_forked_child_has_threads_of_its_own(redis_url: str) -> None:
    settings = provisioned(redis_url)
    cluster = aio.Clusterer(1, settings=settings)

    async def main() -> bool:
        sent = await cluster.send_to(1, PROTO_BIN, numbered(cluster, 1))
        await cluster.set_state(1, 2, 1, PROTO_BIN)
        await cluster.post(1, PROTO_BIN, numbered(cluster, 2))
        return sent == 2 and await cluster.flush(LONG_S)

    assert run(main())
    assert in_child(lambda: run(main())) == 0
    assert run(main())
    run(cluster.close())


# -- serving ---------------------------------------------------------------------------------------


class Tasks:
    """A coroutine callback that remembers its calls, and its event loop."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()

    async def __call__(self, kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        await asyncio.sleep(0)
        self.calls.append((kind, machine_id))
        self.loops.add(asyncio.get_running_loop())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - conditions of other threads too
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("by", ["stop", "close", "cancel"])
def test_aio_serve_calls_coroutines_and_functions(redis_url: str, port: int, by: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        odd: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: odd.append(context))
        handler = loop.get_exception_handler()
        cluster = aio.Clusterer(1, settings=Settings(redis_url=redis_url))
        tasks, functions = Tasks(), Recorded()
        await cluster.register_module("ratelimit", PROTO_BIN, tasks, 0, False, 1)
        serving = asyncio.create_task(cluster.serve())
        await cluster.register_module("ratelimit", PROTO_BIN, functions, 0, False, 1)
        await until(cluster.listener.ready.is_set)
        with peer(port) as connection:
            await asyncio.to_thread(connection.sendall, frame(1, module="ratelimit", sender=2))
            await until(lambda: tasks.calls and functions.calls)
        assert tasks.calls == functions.seen
        assert tasks.loops == {loop}
        if by == "cancel":
            serving.cancel()
        elif by == "stop":
            cluster.stop()
        else:
            await cluster.close()
        done, _ = await asyncio.wait([serving], timeout=LONG_S)
        assert done
        assert serving.cancelled() == (by == "cancel")
        assert loop.get_exception_handler() is handler
        assert odd == []
        await cluster.close()

    run(main())


def test_aio_callback_answers_within_the_loop(redis_url: str, port: int) -> None:
    async def main() -> list[int]:
        async with aio.Clusterer(1, settings=Settings(redis_url=redis_url)) as cluster:
            sent: list[int] = []

            async def answer(kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
                sent.append(await cluster.send_to(1, PROTO_BIN, numbered(cluster, machine_id)))

            await cluster.register_module("ratelimit", PROTO_BIN, answer, 0, False, 1)
            serving = asyncio.create_task(cluster.serve())
            await until(cluster.listener.ready.is_set)
            with peer(port) as connection:
                frames = frame(1, module="ratelimit", sender=2) * 3
                await asyncio.to_thread(connection.sendall, frames)
                await until(lambda: len(sent) == 3)
            cluster.stop()
            await serving
            return sent

    assert run(main()) == [2, 2, 2]


def test_aio_close_ends_sends_that_wait(own_redis_server: Callable[[], RedisServer]) -> None:
    server = own_redis_server()
    settings = provisioned(f"{server.url}?socket_timeout=4")

    async def main() -> None:
        cluster = aio.Clusterer(1, settings=settings)
        await cluster.send_to(1, PROTO_BIN, numbered(cluster, 0))
        server.pause()
        try:
            sends = [
                asyncio.create_task(cluster.send_to(1, PROTO_BIN, numbered(cluster, number)))
                for number in range(10)
            ]
            await asyncio.sleep(0.1)
            await cluster.close()
            done, late = await asyncio.wait(sends, timeout=LONG_S)
            assert (len(done), len(late)) == (10, 0)
            assert all(isinstance(task.exception(), StateUnavailable) for task in done)
        finally:
            server.resume()

    run(main())
