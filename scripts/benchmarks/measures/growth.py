"""Cost by number of nodes and of senders: what readers, jobs, reloads and instances take."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median
from time import monotonic, process_time
from typing import Any

from prometheus_client import generate_latest

from clusterer.cli.live.top import page
from clusterer.ids import PROTO_BIN
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.services.live import Reader
from clusterer.services.metrics import ClusterCollector
from clusterer.services.metrics.http import registry_of
from clusterer.services.periodic import probe, sweep, timeouts
from clusterer.services.table import init_db
from clusterer.services.table import reload as reloading
from clusterer.settings import as_environment
from clusterer.store import Directory, keys
from scripts.benchmarks.plan import Plan
from scripts.benchmarks.processes import BenchmarkFailed, cpu_s, memory_mb
from scripts.benchmarks.roles.listeners import Listener
from scripts.benchmarks.system import System
from tests.support.growth import address_of, put_cluster
from tests.support.ports import free_port
from tests.support.processes import child_environment, wait_until
from tests.support.provisioning import edit

SIZES = ((1000, 300), (10, 1), (100, 30), (1000, 1), (1000, 30))
"""Nodes and senders, the largest first: a quick run measures what fits. The first three show the
growth with the nodes."""

ROWS = (10_000, 10, 100, 1000)
"""Rows of the table of a reload, and nodes that an instance has in memory; each is measured after
the size at the same place."""

REPEATS = 5
LEAST_S = 8.0
"""Time that a size takes; a quick run measures another one only if there is as much left."""

COMMAND_WITHIN_S = 120.0
SETTLE_S = 1.0
"""Pause before the memory of an instance is read."""
TICKS: Mapping[str, Callable[[Context], object]] = {
    "timeouts": timeouts.run,
    "probe": probe.run,
    "sweep": sweep.run,
}
SCREEN = (120, 50)

BY_SENDERS = (
    *("list_s", "list_cpu_s", "list_json_s", "list_active_s", "list_active_cpu_s"),
    *("scrape_s", "scrape_cpu_s", "scrape_active_s", "scrape_active_cpu_s", "top_cpu_s"),
)
"""Figures that are shown by number of senders as well."""

Figures = dict[str, float]


def growth(system: System, plan: Plan) -> dict[str, Any]:
    """Measure all sizes that find time, the largest first."""
    sizes: dict[tuple[int, int], Figures] = {}
    rows: dict[int, Figures] = {}
    memory: dict[int, Figures] = {}
    for size, number in zip_longest(SIZES, ROWS):
        if sizes and monotonic() + LEAST_S > plan.end:
            break
        sizes[size] = _readers(system, *size)
        if number:
            rows[number] = _reload(system, number)
            memory[number] = _memory(system, number)
    nodes = {n: sizes[n, s] for n, s in SIZES[:3] if (n, s) in sizes}
    senders = {s: figures for (n, s), figures in sizes.items() if n == SIZES[0][0]}
    columns = {name: _column(nodes, name) for name in nodes[SIZES[0][0]]}
    reloads = {name: _column(rows, name) for name in rows[ROWS[0]]}
    exponent = _exponents(columns | {f"reload_{n}_s": each for n, each in reloads.items()})
    return {
        "growth": {
            "tick_idle_ms": {name: columns.pop(f"tick_{name}_ms") for name in TICKS},
            "tick_commands": {name: columns.pop(f"tick_{name}_commands") for name in TICKS},
            "refresh_one_change": {
                name: columns.pop(f"refresh_{name}") for name in ("commands", "bytes")
            },
            **columns,
            "reload_s": reloads,
            **{name: _column(memory, name) for name in memory[ROWS[0]]},
            "by_senders": {name: _column(senders, name) for name in BY_SENDERS},
            "exponent": exponent,
        }
    }


def _readers(system: System, nodes: int, senders: int) -> Figures:
    """Measure what reads the nodes and the traffic, and the jobs with nothing due."""
    system.client.flushall()
    put_cluster(system.settings, nodes, senders)
    found = {"redis_mb": _redis_mb(system)}
    found |= _command(system, "list", "list") | _command(system, "list_json", "list", "--json")
    claims = partial(_claim_all, system, senders)
    found |= _timed(system, "list_active", partial(_printed, system, "list"), claims)
    with closing(Context(system.settings)) as context:
        registry = registry_of([ClusterCollector(context)])
        text = generate_latest(registry)
        scrape = partial(generate_latest, registry)
        found |= _timed(system, "scrape", scrape)
        found |= _timed(system, "scrape_active", scrape, claims)
        found["scrape_bytes"] = len(text)
        found["series_per_node"] = sum(b"machine_id=" in x for x in text.splitlines()) / nodes
        found["top_cpu_s"] = median(_top(context))
        for name, tick in TICKS.items():
            tick(context)
            once = partial(tick, context)
            found[f"tick_{name}_ms"] = _timed(system, name, once)[f"{name}_s"] * 1000
            # A tick in ten seconds lists the registrations.
            costs = [_cost(context, once) for _ in range(REPEATS)]
            found[f"tick_{name}_commands"] = median(commands for commands, _ in costs)
        directory = Directory(context.nodes)
        directory.refresh()
        set_status.run(context, 1, 2, 0, PROTO_BIN, by="bench")
        changed = _cost(context, directory.refresh)
        found |= zip(("refresh_commands", "refresh_bytes"), map(float, changed), strict=True)
    return found


def _redis_mb(system: System) -> float:
    memory: Any = system.client.info("memory")
    return float(memory["used_memory"]) / 2**20


def _claim_all(system: System, senders: int) -> None:
    """Count a claim of each log, as if workers had delivered packets of all senders."""
    pipe = system.client.pipeline(transaction=False)
    for sender in range(1, senders + 1):
        pipe.hincrby(keys.counters(sender), "claims", 1)
    pipe.execute()


def _command(system: System, name: str, *words: str) -> Figures:
    """Measure a command as an operator runs it, and the bytes that it prints."""
    sizes: list[int] = []
    return _timed(system, name, lambda: sizes.append(_printed(system, *words))) | {
        f"{name}_bytes": sizes[0]
    }


def _printed(system: System, *words: str) -> int:
    """Run a command; return how many bytes it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "clusterer", *words],
        env=child_environment(as_environment(system.settings)),
        capture_output=True,
        timeout=COMMAND_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise BenchmarkFailed(f"clusterer {' '.join(words)}: {done.stderr.decode()[-500:]}")
    return len(done.stdout)


def _timed(
    system: System,
    name: str,
    work: Callable[[], object],
    before: Callable[[], object] = lambda: None,
) -> Figures:
    """Measure the time of some work, and its CPU time: here, in child processes and in Redis.

    ``before``: what happens before each repetition, which is not measured.
    """
    took, used = [], []
    for _ in range(REPEATS):
        before()
        cpu, begun = _cpu_s(system), monotonic()
        work()
        took.append(monotonic() - begun)
        used.append(_cpu_s(system) - cpu)
    return {f"{name}_s": median(took), f"{name}_cpu_s": median(used)}


def _cpu_s(system: System) -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime + cpu_s(system.redis.pid)


def _top(context: Context) -> list[float]:
    """Return the CPU time of this process for each refresh of `clusterer top`, after the first."""
    reader, took = Reader(context), []
    seen = reader.read()
    for _ in range(REPEATS):
        begun = process_time()
        before, seen = seen, reader.read()
        width, height = SCREEN
        _ = list(page(before, seen, width, 0, height=height).body[:height])
        took.append(process_time() - begun)
    return took


def _cost(context: Context, work: Callable[[], object]) -> tuple[int, int]:
    """Return the commands that Redis runs for ``work``, and the bytes to and from Redis."""
    client: Any = context.redis
    client.config_resetstat()
    work()
    commands, stats = client.info("commandstats"), client.info("stats")
    own = ("cmdstat_config|resetstat", "cmdstat_info")
    ran = sum(int(one["calls"]) for name, one in commands.items() if name not in own)
    return ran, stats["total_net_output_bytes"] + stats["total_net_input_bytes"]


@contextmanager
def _table(system: System, rows: int) -> Iterator[Context]:
    """Give a context whose table has so many rows of cluster 1."""
    system.client.flushall()
    path = Path(system.settings.data_dir) / f"{rows}.db"
    path.unlink(missing_ok=True)
    settings = replace(system.settings, db_url=f"sqlite:///{path}")
    with closing(Context(settings)) as context:
        init_db.run(context)
        made = [NewRow(1, i, f"bin:{address_of(i)}:5566") for i in range(1, rows + 1)]
        init_db.add(context, made)
        yield context


def _reload(system: System, rows: int) -> Figures:
    with _table(system, rows) as context:

        def reload() -> float:
            begun = monotonic()
            reloading.run(context, by="bench")
            return monotonic() - begun

        found = {"all_new": reload()}
        found["unchanged"] = median(reload() for _ in range(3))
        changed = []
        for number in range(3):
            edit(context, 2, duration=40 + number)
            changed.append(reload())
        found["one_changed"] = median(changed)
    return found


def _memory(system: System, nodes: int) -> Figures:
    """Measure the resident memory of an instance that listens, and Redis without any sender."""
    system.client.flushall()
    put_cluster(system.settings, nodes, port=free_port())
    child = system.child(Listener, 1)
    wait_until(lambda: child.call(Listener.count) == 0, message="the instance is ready")
    time.sleep(SETTLE_S)
    found = {"memory_mb": memory_mb(child.pid), "redis_without_senders_mb": _redis_mb(system)}
    child.end()
    return found


def _column(sizes: Mapping[int, Figures], name: str) -> Figures:
    return {str(size): sizes[size][name] for size in sorted(sizes)}


def _exponents(columns: Mapping[str, Figures]) -> Figures:
    """Return for each figure the exponent of its growth between the two largest sizes."""
    found = {}
    for name, column in columns.items():
        points = [(float(size), value) for size, value in column.items()][-2:]
        if len(points) == 2 and all(value > 0 for _, value in points):
            (less, low), (more, high) = points
            found[name] = math.log(high / low) / math.log(more / less)
    return found
