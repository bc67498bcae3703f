"""The child processes of the benchmarks: one class each, whose methods the benchmark calls."""
