"""``python -m scheduler``: one scheduler process; settings come from the environment."""

from __future__ import annotations

import argparse
import sys

from clusterer.errors import ClustererError
from clusterer.runtime import logs, streams
from clusterer.settings.sources import load_settings
from scheduler.process import run


def main() -> int:
    """Parse the command line and run the scheduler; returns the exit code."""
    streams.prepare()
    parser = argparse.ArgumentParser(prog="python -m scheduler", description=__doc__)
    parser.add_argument("--burst", action="store_true", help="enqueue the due jobs, then end")
    options = parser.parse_args()
    try:
        warnings: list[str] = []
        settings = load_settings(warn=warnings.append)
        logs.configure(settings, "scheduler")
        logs.warn(warnings)
        return run(settings, burst=options.burst)
    except ClustererError as error:
        sys.stderr.write(f"scheduler: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
