"""Private attributes of redis-py, RQ and rq-scheduler in use: each is where it was when used first.

They may change with any release. A failure here names the attribute and what depends on it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import redis.connection
import rq.worker
import rq_scheduler

import clusterer
import scheduler
import workers

LIBRARIES = ("redis", "rq", "rq_scheduler")


@dataclass(frozen=True)
class Private:
    """A private attribute, as the library's version ``seen`` has it."""

    library: str
    seen: str
    owner: type
    name: str
    signature: str
    """Of a method; empty for an attribute of each object."""
    user: str
    """The only file that uses it."""
    look_at: str
    """The part of this project that depends on the attribute."""

    def __str__(self) -> str:
        return f"{self.library}-{self.owner.__name__}.{self.name}"


REDIS = "clusterer/endpoint/redis_private.py"
RQ = "workers/rq_private.py"
RQ_SCHEDULER = "scheduler/scheduler.py"

PRIVATE = (
    Private(
        *("redis", "8.1.0", redis.connection.AbstractConnection, "_sock", "", REDIS),
        "socket_of: the log reader, the store's channel and Following.interrupt need it",
    ),
    Private(
        *("redis", "8.1.0", redis.connection.AbstractConnection, "_connect_callbacks", "", REDIS),
        "is_subscription: Following.can_read leaves the first answer to a subscription",
    ),
    Private(
        *("redis", "8.1.0", redis.connection.AbstractConnection, "_parser", "", REDIS),
        "read_available: a new TLS connection must not count as used up",
    ),
    Private(
        *("redis", "8.1.0", redis.ConnectionPool, "_lock", "", REDIS),
        "hold_pool_lock: a fork waits for the lock under which redis-py empties the pool",
    ),
    Private(
        *("redis", "8.1.0", redis.Connection, "_connect", "(self)", REDIS),
        "NamedConnection._connect stands for it: compare the socket options that both set",
    ),
    Private(
        *("redis", "8.1.0", redis.SSLConnection, "_wrap_socket_with_ssl", "(self, sock)", REDIS),
        "NamedTlsConnection: the error of a port without TLS",
    ),
    Private(
        *("rq", "3.0.0", rq.worker.BaseWorker, "_shutdown_requested_date", "", RQ),
        "Hooks.note_stop_request: request_force_stop subtracts it from the time",
    ),
    Private(
        *("rq", "3.0.0", rq.worker.BaseWorker, "_finalize_success"),
        *("(self, job, queue, execution, return_value)", RQ),
        "Bookkeeping: records of a job that are completed once Redis is back",
    ),
    Private(
        *("rq", "3.0.0", rq.worker.BaseWorker, "_finalize_failure"),
        *("(self, job, queue, execution, exc_info)", RQ),
        "Bookkeeping: records of a job that are completed once Redis is back",
    ),
    Private(
        *("rq", "3.0.0", rq.worker.BaseWorker, "_pubsub_exception_handler"),
        *("(self, exc, pubsub, pubsub_thread)", RQ),
        "Stoppable.commands_failed: RQ's commands are heard again after an outage",
    ),
    Private(
        *("rq_scheduler", "0.14.0", rq_scheduler.Scheduler, "_create_job"),
        "(self, func, args=None, kwargs=None, commit=True, result_ttl=None, ttl=None, id=None, "
        "description=None, queue_name=None, timeout=None, meta=None, depends_on=None, "
        "on_success=None, on_failure=None)",
        *(RQ_SCHEDULER, "Scheduler._enqueue makes its jobs with it"),
    ),
    Private(
        *("rq_scheduler", "0.14.0", rq_scheduler.Scheduler, "_install_signal_handlers"),
        *("(self)", RQ_SCHEDULER, "Scheduler.run calls its own: a stop must not raise SystemExit"),
    ),
)


@pytest.mark.parametrize("private", PRIVATE, ids=str)
def test_private_attribute_is_as_seen(private: Private) -> None:
    told = (
        f"{private.library} {version(private.library)}: {private.owner.__name__}.{private.name} is "
        f"not as in {private.seen}. Look at {private.user}: {private.look_at}"
    )
    if private.signature:
        method = getattr(private.owner, private.name, None)
        assert method is not None, told
        names = inspect.signature(method)
        bare = [each.replace(annotation=each.empty) for each in names.parameters.values()]
        shown = str(names.replace(parameters=bare, return_annotation=names.empty))
        assert shown == private.signature, told
    else:
        assert private.name in names_of(private.owner), told


def test_private_attributes_are_used_in_listed_files_only() -> None:
    """Of other objects ruff's SLF001 finds them; of its own object a subclass uses them freely."""
    root = Path(str(clusterer.__file__)).parent.parent
    listed = {(private.user, private.name) for private in PRIVATE}
    found = {
        (str(Path(inspect.getfile(ours)).relative_to(root)), name)
        for ours in subclasses()
        for name in used_by(ours) & names_of(*bases_of(ours))
    }
    for path in sorted(root.glob("[cws]*/**/*.py")):
        if path.parts[len(root.parts)] in {"clusterer", "workers", "scheduler"}:
            lines = path.read_text(encoding="utf-8").splitlines()
            accesses = [line for line in lines if "noqa: SLF001" in line]
            found |= {
                (str(path.relative_to(root)), name)
                for line in accesses
                for name in used_in(ast.parse(line.strip()))
                # `_at_fork…` is the standard library's, `_core` is set by its own module
                if not name.startswith("_at_fork") and name != "_core"
            }
    assert found == listed


def subclasses() -> Iterator[type]:
    """Yield this project's classes that have a base class in one of the libraries."""
    for package in (clusterer, workers, scheduler):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(("__main__", "modules")):
                continue
            members = vars(importlib.import_module(module.name)).values()
            for member in members:
                here = inspect.isclass(member) and member.__module__ == module.name
                if here and bases_of(member):
                    yield member


def bases_of(ours: type) -> list[type]:
    return [base for base in ours.__mro__ if base.__module__.partition(".")[0] in LIBRARIES]


def names_of(*owners: type) -> set[str]:
    """Return the private methods of ``owners`` and of their bases, and what these assign."""
    every = {base for owner in owners for base in owner.__mro__ if base.__module__ != "builtins"}
    return {
        node.name if isinstance(node, ast.FunctionDef) else node.attr
        for base in every
        if base.__module__.partition(".")[0] in LIBRARIES
        for node in ast.walk(tree_of(base))
        if (isinstance(node, ast.FunctionDef) and is_private(node.name))
        or (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and is_private(node.attr)
        )
    }


def used_by(ours: type) -> set[str]:
    """Return the private names that a class uses of itself, or overrides."""
    tree = tree_of(ours)
    methods = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and is_private(node.name)
    }
    return methods | used_in(tree)


def used_in(tree: ast.AST) -> set[str]:
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in attributes if is_private(node.attr)}


@functools.cache
def tree_of(owner: type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(owner)))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
