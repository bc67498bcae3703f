"""Child processes: started so that none outlives its parent, watched, restarted, ended."""

from clusterer.services.processes.child import Child, ChildSpec, Line
from clusterer.services.processes.commands import (
    WORKER_KINDS,
    child_environment,
    node_command,
    scheduler_command,
    worker_command,
)
from clusterer.services.processes.embedded import EmbeddedRedis
from clusterer.services.processes.group import ProcessGroup
from clusterer.services.processes.limits import allow_connections, allow_files
from clusterer.services.processes.progress import Progress
from clusterer.services.processes.stopping import interrupt_on_signals, stop_on_signals
from clusterer.services.processes.supervisor import Supervisor

__all__ = [
    "WORKER_KINDS",
    "Child",
    "ChildSpec",
    "EmbeddedRedis",
    "Line",
    "ProcessGroup",
    "Progress",
    "Supervisor",
    "allow_connections",
    "allow_files",
    "child_environment",
    "interrupt_on_signals",
    "node_command",
    "scheduler_command",
    "stop_on_signals",
    "worker_command",
]
