"""The job functions, by the dotted names under which jobs are enqueued, and fixed ids."""

from __future__ import annotations

DELIVER = "workers.deliver"
PROBE = "workers.probe"
CHECK_TIMEOUTS = "workers.check_timeouts"
SWEEP = "workers.sweep"
SYNC = "workers.sync"
REACH = "workers.reach"
JOB_FUNCTIONS = frozenset({DELIVER, PROBE, CHECK_TIMEOUTS, SWEEP, SYNC, REACH})
"""The only functions a worker imports and runs because a job names them."""

PROBE_ID = "clusterer-probe"
TIMEOUTS_ID = "clusterer-timeouts"
SWEEP_ID = "clusterer-sweep"
SYNC_ID = "clusterer-sync"
"""The periodic job that only persistent mode has."""
PERIODIC_IDS = frozenset({PROBE_ID, TIMEOUTS_ID, SWEEP_ID, SYNC_ID})

OURS = "clusterer"
"""Field of a worker's hash that tells this project's workers from those of other applications."""
