"""Which jobs a worker runs: only those that look as this project's own processes make them.

Every field is judged before RQ's code sees it: RQ would unpickle, unpack without a bound, or raise
in the middle of its bookkeeping, which costs a worker far more than looking at the fields does.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from clusterer.errors import InvalidArgument
from clusterer.jobs.keys import DELIVER, JOB_FUNCTIONS
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE

MOST_FIELDS = 64
MOST_BYTES = 65_536
"""Bounds of one job's hash; jobs of clusterer have less than 30 fields and 1 KiB."""

LONGEST_S = 3600
"""Bound of a job's time limit; jobs of clusterer have 30 s at most, or none (-1)."""
LONGEST_TTL_S = 366 * 86400
"""RQ keeps failed jobs for a year unless it is told otherwise."""

_JOB_ID = re.compile(rb"[A-Za-z0-9_-]{1,200}")
_SHOWN = 60
"""Characters of foreign names in messages."""

_FOREIGN = (
    "success_callback_name",
    "failure_callback_name",
    "stopped_callback_name",
    "webhooks",
    "dependency_id",
    "dependency_ids",
    "group_id",
    "retries_left",
    "retry_intervals",
    "repeats_left",
    "repeat_intervals",
    "rate_limit_key",
    "rate_limit_concurrency",
)
"""Fields that ours leave empty: they make RQ call, enqueue or wait for something else."""

_SECONDS = (("timeout", LONGEST_S), ("result_ttl", LONGEST_TTL_S), ("failure_ttl", LONGEST_TTL_S))


class JunkJob(InvalidArgument):
    """A job that no worker runs; the text says why."""


class MissingJob(JunkJob):
    """A job without a hash."""


def require_id(job_id: bytes) -> str:
    """Return a job id as text; raises `JunkJob` for one that RQ cannot have made."""
    if _JOB_ID.fullmatch(job_id) is None:
        raise JunkJob("its id is not of a form that RQ makes")
    return job_id.decode()


def require_hash(reply: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of a job as ``read_jobs.lua`` replies; raises `JunkJob`, `MissingJob`."""
    kind, *pairs = reply
    if kind == b"none":
        raise MissingJob("its hash does not exist")
    if kind == b"large":
        raise JunkJob(f"its hash has more than {MOST_FIELDS} fields or {MOST_BYTES} bytes")
    if kind != b"hash":
        raise JunkJob(f"its key holds a {kind.decode()}, not a hash")
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def require_ours(fields: Mapping[bytes, bytes], queue: str) -> None:
    """Raise `JunkJob` unless ``fields`` are a job that our processes put into ``queue``."""
    for name in _FOREIGN:
        if fields.get(name.encode()):
            raise JunkJob(f"it has a field {name}")
    if fields.get(b"origin") != queue.encode():
        raise JunkJob("its origin is another queue")
    for name, longest in _SECONDS:
        _require_seconds(name, fields.get(name.encode()), longest)
    if raw := fields.get(b"exc_info"):
        _unpacked(raw)
    _require_call(_loaded(fields.get(b"data", b"")), queue)


def _require_seconds(name: str, raw: bytes | None, longest: int) -> None:
    if not raw:
        return
    number = int(raw) if re.fullmatch(rb"-?[0-9]{1,10}", raw) else None
    if number is None or not (number == -1 or 0 <= number <= longest):
        raise JunkJob(f"its {name} is {_shown(raw)}")


def _loaded(raw: bytes) -> Any:
    text = _unpacked(raw)
    if not text:
        raise JunkJob("it has no data")
    if text.startswith(b"\x80"):
        raise JunkJob("its data is pickled")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JunkJob("its data is not JSON") from error


def _unpacked(raw: bytes) -> bytes:
    """Return what RQ would unpack, but not more of it than a job may have."""
    try:
        text = zlib.decompressobj().decompress(raw, MOST_BYTES + 1)
    except zlib.error:
        return raw
    if len(text) > MOST_BYTES:
        raise JunkJob(f"its data has more than {MOST_BYTES} bytes")
    return text


def _require_call(call: Any, queue: str) -> None:
    if not isinstance(call, list) or len(call) != 4:
        raise JunkJob("its data is no call of a function")
    name, instance, args, kwargs = call
    if not isinstance(name, str) or name not in JOB_FUNCTIONS or instance is not None:
        raise JunkJob(f"its function {_shown(name)} is no function of clusterer")
    if name == DELIVER and queue in (MAINTENANCE_QUEUE, DATABASE_QUEUE):
        raise JunkJob(f"its function {name} does not belong into this queue")
    if args != ([queue] if name == DELIVER else []) or kwargs != {}:
        raise JunkJob(f"its arguments are not those of {name}")


def shown_id(job_id: bytes) -> str:
    """Return a job id, whatever it is, as one printable word."""
    return _shown(job_id).replace(" ", "\\x20")


def _shown(value: object) -> str:
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    text = ascii(raw[:_SHOWN])[1:]
    return text + "..." if len(raw) > _SHOWN else text
