"""Figures from samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the sample below which ``percent`` of all lie (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def percentiles(samples: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return p50 and p99."""
    return {
        "p50": round(percentile(samples, 50), digits),
        "p99": round(percentile(samples, 99), digits),
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the lowest and highest of what it is the median of."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        return cls(median(samples), min(samples), max(samples))


def paired_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios of rounds that ran next to each other."""
    return median(one / other for one, other in zip(ours, others, strict=False))
