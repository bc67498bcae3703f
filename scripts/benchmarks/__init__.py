"""Benchmarks: our path next to the naive one and to the bare limit, in one and the same run.

Run by ``scripts/bench``. Machines swing by a factor of two from hour to hour: rounds alternate, and
what counts are the ratios within one run.
"""
