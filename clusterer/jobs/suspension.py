"""Whether RQ is suspended: after `rq suspend` no worker on that Redis database starts a job."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Self

from rq.suspension import WORKERS_SUSPENDED

from clusterer.endpoint import public_url
from clusterer.settings import Settings

SUSPENDED = WORKERS_SUSPENDED
"""RQ's key; it exists while RQ is suspended."""

_NO_KEY = -2
_NO_TTL = -1


@dataclass(frozen=True, slots=True)
class Suspension:
    """RQ is suspended."""

    left_s: float | None
    """Seconds until it ends by itself; None if only `rq resume` ends it."""

    @classmethod
    def of(cls, pttl_ms: int) -> Self | None:
        """Return what Redis's reply to PTTL of `SUSPENDED` means; None: not suspended."""
        if pttl_ms == _NO_KEY:
            return None
        return cls(None if pttl_ms == _NO_TTL else pttl_ms / 1000)


def resume_command(settings: Settings) -> str:
    """Return the command that ends a suspension; the URL in it has no secrets."""
    return f"rq resume --url {shlex.quote(public_url(settings))}"
