"""``python -m workers KIND``: one worker process; settings come from the environment."""

from __future__ import annotations

import argparse
import sys

from clusterer.errors import ClustererError
from clusterer.runtime import logs, streams
from clusterer.settings import WORKER_KINDS
from clusterer.settings.sources import load_settings
from workers.process import run


def main() -> int:
    """Parse the command line and run the worker; returns the exit code."""
    streams.prepare()
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("kind", choices=WORKER_KINDS)
    parser.add_argument("--burst", action="store_true", help="end when the queue is empty")
    options = parser.parse_args()
    try:
        warnings: list[str] = []
        settings = load_settings(warn=warnings.append)
        logs.configure(settings, f"worker {options.kind}")
        logs.warn(warnings)
        return run(options.kind, settings, burst=options.burst)
    except ClustererError as error:
        sys.stderr.write(f"workers: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
