"""Bounds of the time series per node: Prometheus keeps each, and a scrape has all of them."""

from __future__ import annotations

MOST_PAIRS = 100
"""Pairs of sender and node that get time series of their own."""

MOST_WHOLE = 200
"""Nodes that also get the time series whose value is nearly always 0, and fine histograms."""

MOST_PATHS = 20
"""Paths to a node that get a time series each."""

ALL_SENDERS = "all"
"""The label ``sender`` of a node's sums."""
