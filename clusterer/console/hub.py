"""Loads the content of pages, at most once a second for all browsers, and finds what changed.

A *stream* belongs to one page and its parameters. It loads and renders while at least one browser
watches, and keeps the marks of its last renderings: so each browser gets the fragments that
changed since the rendering that it shows, whatever rendering that is. A browser that reads slowly
misses renderings, not changes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, thread_time, time
from typing import TYPE_CHECKING, Any, TypeVar

from clusterer.console.fragments import Fragments, Marks, fragments_of
from clusterer.console.page import Busy, Page
from clusterer.errors import ClustererError

if TYPE_CHECKING:
    from clusterer.console.console import Console

log = logging.getLogger(__name__)

REFRESH_S = 1.0
"""Least time between two loads of one page with the same parameters."""
SHARE = 0.08
"""Most of one core that loads and renderings may take; pages are refreshed less often instead."""
SLOWEST_S = 30.0
"""Most time between two refreshes of a watched page, whatever they cost."""
PING_S = 5.0
"""Time after which a browser hears that nothing has changed. The script of the pages counts a
connection without any event for three of these times as broken."""
THREADS = 8
"""Loads that run beside each other."""
MOST_STREAMS = 200
"""Pages, with their parameters, that the hub remembers."""
_REMEMBERED = 8
"""Renderings per stream whose marks are kept."""

T = TypeVar("T")

Key = tuple[str, tuple[tuple[str, Any], ...]]


@dataclass(frozen=True, slots=True)
class Rendering:
    """A page's fragments, of one load."""

    version: str
    """Names the rendering; the same in two renderings without a difference."""
    fragments: Fragments
    at: float
    """UNIX seconds of the load."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a browser gets: ``changes``, ``ping`` or ``trouble``."""

    kind: str
    version: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class _Stream:
    page: Page
    parameters: Mapping[str, Any]
    marks: OrderedDict[str, Marks] = field(default_factory=OrderedDict)
    loading: asyncio.Future[dict[str, Any]] | None = None
    content: dict[str, Any] | None = None
    content_at: float = 0.0
    """Monotonic seconds."""
    latest: Rendering | None = None
    trouble: str = ""
    watchers: int = 0
    task: asyncio.Task[None] | None = None
    cost_s: float = 0.0
    """CPU seconds of the last load and rendering."""
    renewed: asyncio.Event = field(default_factory=asyncio.Event)

    def ping(self, version: str) -> Event:
        """Say that the version is still the latest, or why there is no other."""
        return Event("ping", version, {"now": time(), "trouble": self.trouble})

    def announce(self) -> None:
        """Wake all watchers."""
        self.renewed.set()
        self.renewed = asyncio.Event()

    def remember(self, version: str, marks: Marks) -> None:
        self.marks[version] = marks
        self.marks.move_to_end(version)
        while len(self.marks) > _REMEMBERED:
            self.marks.popitem(last=False)


class Hub:
    """The streams of all pages. For one event loop; loads and renderings run in threads."""

    def __init__(self, console: Console, render: Callable[[Page, dict[str, Any]], str]) -> None:
        """``render`` returns the page's HTML for a content, without anything of a user."""
        self._console = console
        self._render = render
        self._streams: OrderedDict[Key, _Stream] = OrderedDict()
        self._threads = ThreadPoolExecutor(THREADS, "clusterer-console")
        self._salt = secrets.token_hex(4)
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """End all streams; each watcher's iteration ends."""
        self._closed.set()
        tasks = [stream.task for stream in self._streams.values() if stream.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in self._streams.values():
            stream.announce()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def content(self, page: Page, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the page's content, at most `REFRESH_S` old, or that of the last refresh.

        A page has refreshes while a browser watches it. Raises the errors of its `load`.
        """
        stream = self._stream(page, parameters)
        age_s = monotonic() - stream.content_at
        oldest_s = self._period_s() if stream.task and not stream.trouble else REFRESH_S
        if stream.content is not None and age_s < oldest_s:
            return stream.content
        return await self._loaded(stream)

    def show(self, page: Page, parameters: Mapping[str, Any], html: str) -> str:
        """Note that a browser shows ``html``; return the version from which it can watch."""
        fragments = fragments_of(html)
        version = self._version(fragments)
        self._stream(page, parameters).remember(version, fragments.marks)
        return version

    async def watch(
        self, page: Page, parameters: Mapping[str, Any], since: str
    ) -> AsyncGenerator[Event, None]:
        """Yield what a browser needs that shows the version ``since``, until the hub closes.

        If the hub does not know the version, the first event has all fragments.
        """
        stream = self._stream(page, parameters)
        stream.watchers += 1
        try:
            if stream.task is None:
                stream.task = asyncio.create_task(self._refresh(stream))
            known: Marks | None = stream.marks.get(since)
            version, trouble, said = since, "", monotonic()
            yield stream.ping(version)
            while not self._closed.is_set():
                renewed = stream.renewed
                if stream.trouble != trouble:
                    trouble, said = stream.trouble, monotonic()
                    yield Event("trouble", version, {"text": trouble})
                latest = stream.latest
                if latest and latest.version != version and not trouble:
                    changed = _difference(latest.fragments, known)
                    version, known, said = latest.version, latest.fragments.marks, monotonic()
                    yield Event("changes", version, {"fragments": changed})
                    continue
                if monotonic() - said >= PING_S:
                    said = monotonic()
                    yield stream.ping(version)
                await _set_within(renewed, said + PING_S - monotonic())
        finally:
            stream.watchers -= 1

    def _stream(self, page: Page, parameters: Mapping[str, Any]) -> _Stream:
        key = page.name, tuple(sorted(parameters.items()))
        stream = self._streams.get(key)
        if stream is None:
            self._make_room()
            stream = self._streams[key] = _Stream(page, dict(parameters))
        self._streams.move_to_end(key)
        return stream

    def _make_room(self) -> None:
        if len(self._streams) < MOST_STREAMS:
            return
        for key, stream in self._streams.items():
            if not stream.watchers and stream.task is None and stream.loading is None:
                del self._streams[key]
                return
        raise Busy(f"{MOST_STREAMS} different pages are open; close some")

    async def _loaded(self, stream: _Stream) -> dict[str, Any]:
        """Load the page; callers at the same time share one load."""
        if stream.loading is None:
            stream.loading = asyncio.ensure_future(self._load(stream))
            stream.loading.add_done_callback(lambda _: setattr(stream, "loading", None))
        return await asyncio.shield(stream.loading)

    async def _load(self, stream: _Stream) -> dict[str, Any]:
        begun = monotonic()
        load = partial(stream.page.load, self._console, stream.parameters)
        content, cost_s = await self._in_thread(load)
        stream.content, stream.content_at, stream.cost_s = content, begun, cost_s
        return content

    async def _refresh(self, stream: _Stream) -> None:
        """Load and render until no browser watches."""
        try:
            while stream.watchers:
                begun = monotonic()
                await self._round(stream)
                stream.announce()
                await asyncio.sleep(max(0.0, self._period_s() - (monotonic() - begun)))
        finally:
            stream.task, stream.latest, stream.cost_s = None, None, 0.0

    def _period_s(self) -> float:
        cost_s = sum(stream.cost_s for stream in self._streams.values() if stream.task)
        return min(max(REFRESH_S, cost_s / SHARE), SLOWEST_S)

    async def _round(self, stream: _Stream) -> None:
        try:
            content = await self._loaded(stream)
            fragments, cost_s = await self._in_thread(
                lambda: fragments_of(self._render(stream.page, content))
            )
        except ClustererError as error:
            stream.trouble = str(error)
            return
        except Exception:
            log.exception("console: page %s failed; trying again", stream.page.name)
            stream.trouble = "this page failed; the log of the console has the cause"
            return
        stream.cost_s += cost_s
        version = self._version(fragments)
        stream.remember(version, fragments.marks)
        stream.latest, stream.trouble = Rendering(version, fragments, time()), ""

    def _version(self, fragments: Fragments) -> str:
        return f"{self._salt}-{hash(tuple(fragments.marks.items())) & (2**64 - 1):x}"

    async def _in_thread(self, work: Callable[[], T]) -> tuple[T, float]:
        """Return the result of ``work``, and the CPU seconds that it took."""

        def timed() -> tuple[T, float]:
            begun = thread_time()
            return work(), thread_time() - begun

        return await asyncio.get_running_loop().run_in_executor(self._threads, timed)


def _difference(fragments: Fragments, known: Marks | None) -> dict[str, str]:
    return fragments.outermost() if known is None else fragments.changed_since(known)


async def _set_within(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), max(0.0, timeout_s))
