"""What the figures are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target and how it was met."""

    what: str
    target: str
    value: str
    met: bool


@dataclass(frozen=True, slots=True)
class _Target:
    needs: str
    """Key of the result."""
    what: str
    target: str
    value: Callable[[Any], float]
    met: Callable[[float], bool]
    shown: str = "{:g}"


def _at(*path: str) -> Callable[[Any], float]:
    def look(found: Any) -> float:
        for name in path:
            found = found[name]
        return float(found)

    return look


def _flatness(costs: Mapping[str, float]) -> float:
    """Return how far the costs are from the first one, at the most, in percent."""
    first, *others = costs.values()
    return max(abs(one / first - 1) for one in others) * 100


def _growth(rates: Mapping[str, float]) -> float:
    return rates["64"] / rates["4"]


def _starved(found: Mapping[str, float]) -> float:
    return found["slowest_packets"] / found["packets_each"] * 100


TARGETS = (
    _Target(
        "single", "send_to vs naive", ">= 100 x", _at("vs_naive"), lambda x: x >= 100, "{:.0f} x"
    ),
    _Target(
        "single", "send_to vs limit", ">= 0.6 x", _at("vs_limit"), lambda x: x >= 0.6, "{:.2f} x"
    ),
    _Target(
        "single",
        "send_to, CPU per delivery",
        "<= 25 µs",
        _at("cpu_us_per_delivery"),
        lambda x: x <= 25,
        "{:.1f} µs",
    ),
    _Target(
        "batch", "send_many vs naive", ">= 2000 x", _at("vs_naive"), lambda x: x >= 2000, "{:.0f} x"
    ),
    _Target(
        "batch", "send_many vs limit", ">= 0.5 x", _at("vs_limit"), lambda x: x >= 0.5, "{:.2f} x"
    ),
    _Target(
        "batch",
        "send_many, CPU per delivery",
        "<= 3 µs",
        _at("cpu_us_per_delivery"),
        lambda x: x <= 3,
        "{:.2f} µs",
    ),
    _Target(
        "latency_warm_ms",
        "latency at 100/s, p50",
        "<= 1 ms",
        _at("p50"),
        lambda x: x <= 1,
        "{:.2f} ms",
    ),
    _Target(
        "latency_warm_ms",
        "latency at 100/s, p99",
        "<= 5 ms",
        _at("p99"),
        lambda x: x <= 5,
        "{:.2f} ms",
    ),
    _Target(
        "latency_cold_ms",
        "latency after silence, p50",
        "<= 8 ms",
        _at("p50"),
        lambda x: x <= 8,
        "{:.2f} ms",
    ),
    _Target(
        "send_to_us",
        "cost of send_to, 1 to 64 nodes",
        "± 20 %",
        _flatness,
        lambda x: x <= 20,
        "± {:.0f} %",
    ),
    _Target(
        "deliveries_per_s",
        "deliveries/s, 64 nodes vs 4",
        ">= 1 x",
        _growth,
        lambda x: x >= 1,
        "{:.2f} x",
    ),
    _Target("get_nodes_us", "get_nodes, p50", "<= 10 µs", float, lambda x: x <= 10, "{:.2f} µs"),
    _Target("check_us", "check, p50", "<= 10 µs", float, lambda x: x <= 10, "{:.2f} µs"),
    _Target(
        "idle_cpu_percent", "idle, all processes", "<= 3 %", float, lambda x: x <= 3, "{:.2f} %"
    ),
    _Target("threads", "4 threads vs 1", "> 1 x", _at("vs_one"), lambda x: x > 1, "{:.2f} x"),
    _Target(
        "many_senders",
        "50 senders, 2 workers, p99",
        "<= 20 ms",
        _at("p99"),
        lambda x: x <= 20,
        "{:.2f} ms",
    ),
    _Target(
        "many_senders",
        "50 senders, the slowest one's packets",
        "100 %",
        _starved,
        lambda x: x >= 100,
        "{:.0f} %",
    ),
    _Target(
        "many_senders",
        "50 senders, RQ jobs",
        "<= 5 /s",
        _at("jobs_per_s"),
        lambda x: x <= 5,
        "{:.2f} /s",
    ),
    _Target(
        "stuck_peer",
        "p99 of 3 peers, the 4th stuck",
        "< 2 x",
        _at("ratio"),
        lambda x: x < 2,
        "{:.2f} x",
    ),
    _Target(
        "memory",
        "worker's growth, 1,000,000 waiting",
        "<= 20 MB",
        _at("growth_mb"),
        lambda x: x <= 20,
        "{:.1f} MB",
    ),
    _Target(
        "listener", "listener vs bare", ">= 0.5 x", _at("vs_bare"), lambda x: x >= 0.5, "{:.2f} x"
    ),
    _Target(
        "listener_ratelimit",
        "listener with ratelimit vs bare",
        ">= 0.25 x",
        _at("vs_bare"),
        lambda x: x >= 0.25,
        "{:.2f} x",
    ),
    _Target(
        "redis_commands_per_s",
        "Redis commands at 100,000 packets/s",
        "<= 20 /s",
        float,
        lambda x: x <= 20,
        "{:.1f} /s",
    ),
    _Target(
        "idle_connections",
        "1,000 connections, CPU",
        "<= 5 %",
        _at("cpu_percent"),
        lambda x: x <= 5,
        "{:.2f} %",
    ),
    _Target(
        "idle_connections",
        "1,000 connections, memory",
        "<= 100 MB",
        _at("memory_mb"),
        lambda x: x <= 100,
        "{:.1f} MB",
    ),
    _Target(
        "decoder_fuzz",
        "1,000,000 hostile streams, memory",
        "<= 5 MB",
        _at("growth_mb"),
        lambda x: x <= 5,
        "{:.1f} MB",
    ),
)


def verdicts(results: Results) -> list[Verdict]:
    """Hold the figures that are there against their targets."""
    found = []
    for target in TARGETS:
        if results.get(target.needs) is not None:
            value = target.value(results[target.needs])
            found.append(
                Verdict(target.what, target.target, target.shown.format(value), target.met(value))
            )
    return found
