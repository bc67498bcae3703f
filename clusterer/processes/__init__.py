"""Child processes: started so that none outlives its parent, watched, restarted, ended."""

from clusterer.processes.child import (
    Child,
    ChildSpec,
    Line,
    child_environment,
    python_command,
)
from clusterer.processes.embedded import EmbeddedRedis
from clusterer.processes.group import ProcessGroup
from clusterer.processes.progress import Progress
from clusterer.processes.supervisor import Supervisor

__all__ = [
    "Child",
    "ChildSpec",
    "EmbeddedRedis",
    "Line",
    "ProcessGroup",
    "Progress",
    "Supervisor",
    "child_environment",
    "python_command",
]
