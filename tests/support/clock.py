"""A clock that a private server goes by instead of the host's, and that tests may set."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.programs import require_program


class ShiftedClock:
    """The host's clock, so many seconds off; its server lives under libfaketime.

    Only the time of day is shifted: what a server measures with its monotonic clock stays right.
    """

    def __init__(self, directory: Path, offset_s: float = 0.0) -> None:
        """Needs libfaketime: without it the test is skipped, or in CI fails."""
        faketime = require_program("faketime")
        # Which library that is, and where, the program knows best.
        asked = [faketime, "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
        done = subprocess.run(asked, env=dict(os.environ), capture_output=True, check=True)
        self._library = done.stdout.decode().strip()
        self._file = directory / "clock-offset"
        self.set(offset_s)

    def set(self, offset_s: float) -> None:
        """Let the clock jump to ``offset_s`` seconds ahead of the host's (below 0: behind)."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+f}s\n", encoding="ascii")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which the server must be started."""
        return {
            # libc's malloc before jemalloc's, which asks for the time before there is one.
            "LD_PRELOAD": f"{self._library}:libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
