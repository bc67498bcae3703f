"""The ratelimit module's packets: the codec in `clusterer.payloads.ratelimit`, by its old name."""

from clusterer.payloads.ratelimit import (
    FULL_AT,
    INT_MAX,
    MODULE,
    PIPE_COUNTERS,
    VERSION,
    PipeRecord,
    build_packets,
    read_records,
)

__all__ = [
    "FULL_AT",
    "INT_MAX",
    "MODULE",
    "PIPE_COUNTERS",
    "VERSION",
    "PipeRecord",
    "build_packets",
    "read_records",
]
