"""Scripts for developers; the benchmarks among them are Python modules."""
