"""A page of the console: its path, the function that loads its content, and its template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.routing import compile_path

from clusterer.errors import (
    ChangedMeanwhile,
    ClustererError,
    InvalidArgument,
    ProvisioningError,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
)

if TYPE_CHECKING:
    from clusterer.console.console import Console

Parameters = Mapping[str, Any]
"""The parameters of the path, converted (`{machine_id:int}` is an int), and those of the query, as
text."""

CLUSTER_PATH = "/clusters/{cluster_id:int}-{proto}"
NODE_PATH = CLUSTER_PATH + "/nodes/{machine_id:int}"

Load = Callable[["Console", Parameters], dict[str, Any]]


class NotFound(InvalidArgument):
    """The page's subject does not exist; the answer is 404."""


class Busy(ClustererError):
    """More pages are watched than the hub serves."""


def path_format(route: str) -> str:
    """Return the path of a route without the types of its parameters, for `str.format`."""
    return compile_path(route)[1]


def status_of(error: Exception) -> int:
    """Return the HTTP status for an error of a service or of a page."""
    if isinstance(error, NotFound | UnknownNode | UnknownCluster):
        return 404
    if isinstance(error, InvalidArgument) and not isinstance(error, ChangedMeanwhile):
        return 400
    return 503 if isinstance(error, StateUnavailable | ProvisioningError | Busy) else 409


@dataclass(frozen=True)
class Page:
    """One page; the framework makes three routes of it.

    - ``GET {path}``: the page as HTML
    - ``GET /api/v1{path}``: the content as JSON, as `load` returns it
    - ``GET /live{path}``: server-sent events with the fragments that changed, if ``live``
    """

    name: str
    """Unique among all pages, and the name of the route of the HTML page."""
    path: str
    """A route, such as `CLUSTER_PATH`."""
    title: str
    """Title and entry in the menu. A content with a key ``title`` overrides it on the page."""
    load: Load
    """Returns the content, which JSON can represent: dictionaries with text keys, lists, texts,
    numbers, booleans, None.

    `load` runs in a thread, beside other loads. Raises `NotFound`, `UnknownNode` or
    `UnknownCluster` (the answer is 404), another `InvalidArgument` (400), `StateUnavailable` or
    `ProvisioningError` (503). The content is the same for all users.
    """
    template: str
    """Name below ``templates/``; extends ``base.html``, and gets ``content`` and ``page``."""
    live: bool = True
    in_menu: bool = True
    query: tuple[str, ...] = ()
    """Names of the query's parameters that `load` uses. Others do not reach `load`."""

    @property
    def api_path(self) -> str:
        """Path of the content as JSON."""
        return f"/api/v1{self.path}"

    @property
    def live_path(self) -> str:
        """Path of the server-sent events."""
        return f"/live{self.path}"


@dataclass(frozen=True)
class File:
    """The answer of a download."""

    body: bytes
    media_type: str
    name: str = ""
    """Name under which browsers save it; empty: browsers show it."""


@dataclass(frozen=True)
class Download:
    """A path that answers with a file: ``GET {path}``."""

    name: str
    """Unique among all pages and downloads."""
    path: str
    load: Callable[[Console, Parameters], File]
    """Runs in a thread for each request; raises as `Page.load` does."""
    query: tuple[str, ...] = ()
