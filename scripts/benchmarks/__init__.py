"""Benchmarks: our path next to the naive path and to the bare limit, all in the same run.

``scripts/bench`` runs them. The speed of a host changes by a factor of two from hour to hour:
rounds alternate, and only the ratios within one run count.
"""
