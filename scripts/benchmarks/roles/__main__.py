"""A child process: makes one role and answers calls of its methods, one line of JSON each.

Run as ``python -m scripts.benchmarks.roles MODULE:CLASS ARGUMENTS``; the parent's side is
`scripts.benchmarks.processes.Child`.
"""

from __future__ import annotations

import json
import resource
import sys
from importlib import import_module

MAX_FILES = 65_536


def main() -> None:
    """Answer calls until the parent closes the pipe."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MAX_FILES), hard))
    module, _, name = sys.argv[1].partition(":")
    arguments, options = json.loads(sys.argv[2])
    role = getattr(import_module(module), name)(*arguments, **options)
    for line in sys.stdin:
        method, arguments, options = json.loads(line)
        result = getattr(role, method)(*arguments, **options)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
