"""The ASGI application: three routes of each page, the static files, and the errors as answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from clusterer.console import openapi
from clusterer.console.access.guard import Guard
from clusterer.console.access.identity import Identity
from clusterer.console.access.login import Login
from clusterer.console.access.sessions import Sessions
from clusterer.console.access.user import User, user_of
from clusterer.console.actions import ACTIONS
from clusterer.console.actions.routes import ActionRoutes
from clusterer.console.console import Console
from clusterer.console.hub import Event, Hub
from clusterer.console.page import Download, Page, Parameters, status_of
from clusterer.console.pages import PAGES, packets
from clusterer.console.views import STATIC, Views
from clusterer.errors import ClustererError, InvalidArgument, StateUnavailable

MOST_QUERY = 200
"""Characters of a value in a query."""


class App:
    """The console as an ASGI application; `asgi` is made once and needs one event loop."""

    def __init__(
        self, console: Console, *, local: bool = True, pages: tuple[Page, ...] = PAGES
    ) -> None:
        """``local``: only this host reaches the console, which then works without users too.

        Raises `ClustererError` if the file of the signing key cannot be used.
        """
        self.console = console
        self.pages = pages
        self.downloads = (packets.RECORDING, openapi.DOWNLOAD)
        self.views = Views(pages)
        self.hub = Hub(console, self.views.page)
        sessions = Sessions(console.key)
        self.identity = Identity(console.context, sessions)
        self.login = Login(console.context, self.identity, sessions, self.views)
        self.starlette = Starlette(
            routes=[*self._routes()],
            middleware=[Middleware(GZipMiddleware, minimum_size=1000)],
            exception_handlers={
                ClustererError: self._failed,
                HTTPException: self._refused,
                Exception: self._broken,
            },
            lifespan=self._lifespan,
        )
        self.asgi = Guard(
            self.starlette,
            self.identity,
            sessions,
            self.answer,
            local=local,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self.hub.close()
        self.console.close()

    def _routes(self) -> list[BaseRoute]:
        found: list[BaseRoute] = [Route("/", self._home, name="home"), *self.login.routes]
        # Before the pages: /clusters/add is no cluster.
        found += ActionRoutes(self.console, self.views, ACTIONS).routes
        for page in self.pages:
            html, as_json = partial(self._html, page), partial(self._json, page)
            found.append(Route(page.path, html, name=page.name))
            found.append(Route(page.api_path, as_json, name=f"api:{page.name}"))
            if page.live:
                live = partial(self._live, page)
                found.append(Route(page.live_path, live, name=f"live:{page.name}"))
        for each in self.downloads:
            found.append(Route(each.path, partial(self._file, each), name=each.name))
        return [*found, Mount("/static", StaticFiles(directory=STATIC), name="static")]

    async def _home(self, _request: Request) -> Response:
        return RedirectResponse(self.pages[0].path)

    async def _html(self, page: Page, request: Request) -> Response:
        given = parameters(page, request)
        content = await self.hub.content(page, given)
        user, shown = user_of(request), ""
        if page.live:
            shown = self.hub.show(page, given, self.views.page(page, content))
        text = self.views.page(page, content, parameters=given, user=user, shown=shown)
        return Response(text, media_type="text/html")

    async def _file(self, download: Download, request: Request) -> Response:
        given = parameters(download, request)
        file = await run_in_threadpool(download.load, self.console, given)
        headers = {}
        if file.name:
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(file.name)}"
        return Response(file.body, media_type=file.media_type, headers=headers)

    async def _json(self, page: Page, request: Request) -> Response:
        return JSONResponse(await self.hub.content(page, parameters(page, request)))

    async def _live(self, page: Page, request: Request) -> Response:
        given = parameters(page, request)
        since = request.headers.get("last-event-id") or request.query_params.get("version", "")
        return StreamingResponse(
            self._events(page, given, since[:MOST_QUERY], user_of(request)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _events(
        self, page: Page, given: Parameters, since: str, user: User
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of a page, as sent, until the user may no longer watch."""
        async with aclosing(self.hub.watch(page, given, since)) as events:
            async for event in events:
                with suppress(StateUnavailable):  # the page's own event says it
                    if not await self.identity.still(user):
                        yield as_sent(Event("goodbye", event.version, {}))
                        return
                yield as_sent(event)

    async def _failed(self, request: Request, error: Exception) -> Response:
        return await self.answer(request, status_of(error), str(error))

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
        text = _WORDS.get(error.status_code, error.detail)
        return await self.answer(request, error.status_code, text)

    async def _broken(self, request: Request, _error: Exception) -> Response:
        """Answer for a bug; the log has its traceback."""
        return await self.answer(request, 500, "internal error; the log of the console has more")

    async def answer(self, request: Request, status: int, text: str) -> Response:
        """Return a page, or for scripts JSON, with a status and a sentence."""
        if request.scope["path"].startswith(("/api/", "/live/")):
            return JSONResponse({"error": text}, status)
        return self.views.message(request, _TITLES.get(status, "Not possible now"), text, status)


_TITLES = {404: "Not found", 400: "Wrong request", 401: "Log in", 403: "Not allowed"}
_WORDS = {404: "The console has no such page.", 405: "This page takes no such request."}


def parameters(page: Page | Download, request: Request) -> Parameters:
    """Return the parameters of the path and of the query; raises `InvalidArgument` if too long."""
    query = {
        name: request.query_params[name] for name in page.query if name in request.query_params
    }
    for name, value in query.items():
        if len(value) > MOST_QUERY:
            raise InvalidArgument(f"{name} has {len(value)} characters, at most {MOST_QUERY} fit")
    return query | request.path_params


def as_sent(event: Event) -> bytes:
    """Return an event in the form of server-sent events."""
    data = json.dumps(event.data, ensure_ascii=False)
    return f"event: {event.kind}\nid: {event.version}\ndata: {data}\n\n".encode("utf-8", "replace")
