"""What the figures are compared to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any

_OPERATORS = {">=": ge, ">": gt, "<=": le, "<": lt, "±": le}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target and whether the figure meets it."""

    what: str
    target: str
    value: str
    met: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to be."""

    needs: str
    """Key of the result."""
    take: str | Callable[[Any], float | None]
    """Key of the figure within that result (``key.key`` in a part), "" for the result itself; or
    how to compute it, None for a figure that was not measured."""
    what: str
    target: str
    """Operator (>= if there is none), bound and unit."""
    digits: int
    """Decimals of the figure that are shown."""

    def judge(self, result: Any) -> Verdict | None:
        """Compare the figure in a result to the target; None without the figure."""
        value = self._figure(result)
        if value is None:
            return None
        *operator, bound, unit = self.target.split()
        met = _OPERATORS["".join(operator) or ">="](value, float(bound.replace(",", "")))
        sign = "± " if operator == ["±"] else ""
        return Verdict(self.what, self.target, f"{sign}{value:.{self.digits}f} {unit}", met)

    def _figure(self, result: Any) -> float | None:
        if callable(self.take):
            return self.take(result)
        for key in filter(None, self.take.split(".")):
            result = result.get(key)
        return result if result is None else float(result)


def _flatness(costs: Mapping[str, float]) -> float:
    """Return how far the costs are from the first one, at the most, in percent."""
    first, *others = costs.values()
    return max(abs(one / first - 1) for one in others) * 100


def _growth(rates: Mapping[str, float]) -> float:
    return rates["64"] / rates["4"]


def _slowest(found: Mapping[str, float]) -> float:
    return found["slowest_packets"] / found["packets_each"] * 100


_ONE = "reload of 10,000 rows, one changed"


def _grown(*path: str, per: float = 1) -> Callable[[Any], float | None]:
    """Return how to take a figure of `growth`: the highest where the path leads to several."""

    def take(found: Any) -> float | None:
        for name in path[:-1]:
            found = found[name]
        columns = [each for each in found.values() if isinstance(each, dict)] or [found]
        values = [column[path[-1]] for column in columns if path[-1] in column]
        return max(values) / per if values else None

    return take


def _bytes_by_size(found: Any) -> float | None:
    sizes = found["refresh_one_change"]["bytes"]
    return sizes["1000"] / sizes["10"] if {"10", "1000"} <= sizes.keys() else None


TARGETS = (
    Target("single", "vs_naive", "send_to vs naive", ">= 100 x", 0),
    Target("single", "vs_limit", "send_to vs limit", ">= 0.6 x", 2),
    Target("single", "cpu_us_per_delivery", "send_to, CPU per delivery", "<= 25 µs", 1),
    Target("batch", "vs_naive", "send_many vs naive", ">= 2000 x", 0),
    Target("batch", "vs_limit", "send_many vs limit", ">= 0.5 x", 2),
    Target("batch", "cpu_us_per_delivery", "send_many, CPU per delivery", "<= 3 µs", 2),
    Target("latency_warm_ms", "p50", "latency at 100/s, p50", "<= 1 ms", 2),
    Target("latency_warm_ms", "p99", "latency at 100/s, p99", "<= 5 ms", 2),
    Target("latency_cold_ms", "p50", "latency after silence, p50", "<= 8 ms", 2),
    Target("send_to_us", _flatness, "cost of send_to, 1 to 64 nodes", "± 20 %", 0),
    Target("deliveries_per_s", _growth, "deliveries/s, 64 nodes vs 4", ">= 1 x", 2),
    Target("get_nodes_us", "", "get_nodes, p50", "<= 10 µs", 2),
    Target("check_us", "", "check, p50", "<= 10 µs", 2),
    Target("idle_cpu_percent", "", "idle, all processes", "<= 3 %", 2),
    Target("threads", "vs_one", "4 threads vs 1", "> 1 x", 2),
    Target("post", "vs_send_many", "post vs send_many", ">= 0.6 x", 2),
    Target("post", "cpu_us_per_delivery", "post, CPU per delivery", "<= 3 µs", 2),
    Target("post", "latency_ms.p50", "post, latency at 100/s, p50", "<= 2 ms", 2),
    Target("aio", "vs_blocking", "100 tasks vs one blocking caller", ">= 5 x", 2),
    Target("many_senders", "p99", "50 senders, 2 workers, p99", "<= 20 ms", 2),
    Target("many_senders", _slowest, "50 senders, the slowest one's packets", "100 %", 0),
    Target("many_senders", "jobs_per_s", "50 senders, RQ jobs", "<= 5 /s", 2),
    Target("many_senders_200", "p99", "200 senders, 10 nodes, p99", "<= 100 ms", 1),
    Target("many_senders_200", "starved", "200 senders, starved", "<= 0 senders", 0),
    Target("many_senders_1000", "p99", "1,000 senders, 10 nodes, p99", "<= 100 ms", 1),
    Target("many_senders_1000", "starved", "1,000 senders, starved", "<= 0 senders", 0),
    Target("stuck_peer", "ratio", "p99 of 3 peers, the 4th stuck", "< 2 x", 2),
    Target("memory", "growth_mb", "worker's growth, 1,000,000 waiting", "<= 20 MB", 1),
    Target("listener", "vs_bare", "listener vs bare", ">= 0.5 x", 2),
    Target("listener_ratelimit", "vs_bare", "listener with ratelimit vs bare", ">= 0.25 x", 2),
    Target("redis_commands_per_s", "", "Redis commands at 100,000 packets/s", "<= 20 /s", 1),
    Target("idle_connections", "cpu_percent", "1,000 connections, CPU", "<= 5 %", 2),
    Target("idle_connections", "memory_mb", "1,000 connections, memory", "<= 100 MB", 1),
    Target("peers", "vs_nats.send_many", "send_many vs NATS", ">= 1 x", 2),
    Target("peers", "vs_nats.send_to", "send_to vs NATS with flush", ">= 1.5 x", 2),
    Target("growth", _grown("list_s", "1000"), "list, 1,000 nodes, 300 senders", "<= 0.5 s", 2),
    Target("growth", _grown("scrape_s", "1000"), "scrape", "<= 0.5 s", 2),
    Target("growth", _grown("scrape_bytes", "1000", per=1e6), "scrape, size", "<= 1 MB", 2),
    Target("growth", _grown("series_per_node", "1000"), "series per node", "<= 20 series", 1),
    Target("growth", _grown("top_cpu_s", "1000"), "refresh of top, CPU", "<= 0.2 s", 2),
    Target("growth", _grown("tick_idle_ms", "1000"), "tick with nothing due", "<= 20 ms", 1),
    Target("growth", _grown("tick_commands", "1000"), "the same, commands", "<= 20 commands", 0),
    Target("growth", _bytes_by_size, "bytes of a change, 1,000 nodes vs 10", "<= 1.5 x", 2),
    Target("growth", _grown("reload_s", "one_changed", "10000"), _ONE, "<= 1.5 s", 2),
    Target("growth", _grown("reload_s", "all_new", "10000"), "the same, all new", "<= 3 s", 2),
    Target("growth", _grown("memory_mb", "10000"), "instance, 10,000 nodes", "<= 120 MB", 1),
    Target("decoder_fuzz", "growth_mb", "1,000,000 hostile streams, memory", "<= 5 MB", 1),
)


def verdicts(results: Mapping[str, Any]) -> list[Verdict]:
    """Compare the figures that were measured to their targets."""
    found = (t.judge(results[t.needs]) for t in TARGETS if results.get(t.needs) is not None)
    return [verdict for verdict in found if verdict is not None]
