"""The ASGI application: three routes of each page, the static files, and the errors as answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from clusterer.console.console import Console
from clusterer.console.hub import Busy, Event, Hub
from clusterer.console.page import NotFound, Page, Parameters
from clusterer.console.routes import PAGES
from clusterer.console.templating import STATIC, environment
from clusterer.console.users import VISITOR
from clusterer.console.views import Views
from clusterer.errors import (
    ClustererError,
    InvalidArgument,
    ProvisioningError,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
)

MOST_QUERY = 200
"""Characters of a value in a query."""

Endpoint = Callable[[Request], Awaitable[Response]]


class App:
    """The console as an ASGI application; `asgi` is made once and needs one event loop."""

    def __init__(self, console: Console, pages: tuple[Page, ...] = PAGES) -> None:
        self.console = console
        self.views = Views(environment(), pages)
        self.hub = Hub(console, self.views.page)
        self.asgi = Starlette(
            routes=[*self._routes(pages)],
            middleware=[Middleware(GZipMiddleware, minimum_size=1000)],
            exception_handlers={ClustererError: self._failed, HTTPException: self._refused},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self.hub.close()
        self.console.close()

    def _routes(self, pages: tuple[Page, ...]) -> list[BaseRoute]:
        found: list[BaseRoute] = [Route("/", self._home, name="home")]
        for page in pages:
            found.append(Route(page.path, self._html(page), name=page.name))
            found.append(Route(page.api_path, self._json(page), name=f"api:{page.name}"))
            if page.live:
                found.append(Route(page.live_path, self._live(page), name=f"live:{page.name}"))
        return [*found, Mount("/static", StaticFiles(directory=STATIC), name="static")]

    async def _home(self, _request: Request) -> Response:
        return RedirectResponse(PAGES[0].path)

    def _html(self, page: Page) -> Endpoint:
        async def html(request: Request) -> Response:
            given = parameters(page, request)
            content = await self.hub.content(page, given)
            user = getattr(request.state, "user", VISITOR)
            shown = ""
            if page.live:
                shown = self.hub.show(page, given, self.views.page(page, content))
            text = self.views.page(page, content, parameters=given, user=user, shown=shown)
            return Response(text, media_type="text/html")

        return html

    def _json(self, page: Page) -> Endpoint:
        async def as_json(request: Request) -> Response:
            return JSONResponse(await self.hub.content(page, parameters(page, request)))

        return as_json

    def _live(self, page: Page) -> Endpoint:
        async def live(request: Request) -> Response:
            given = parameters(page, request)
            since = request.headers.get("last-event-id") or request.query_params.get("since", "")
            events = self.hub.watch(page, given, since[:MOST_QUERY])
            return StreamingResponse(
                (as_sent(event) async for event in events),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )

        return live

    async def _failed(self, request: Request, error: Exception) -> Response:
        return self._answer(request, status_of(error), str(error))

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
        return self._answer(request, error.status_code, error.detail)

    def _answer(self, request: Request, status: int, text: str) -> Response:
        if request.url.path.startswith(("/api/", "/live/")):
            return JSONResponse({"error": text}, status)
        title = {404: "Not found", 400: "Wrong request"}.get(status, "Not possible now")
        return self.views.message(request, title, text, status)


def status_of(error: Exception) -> int:
    """Return the HTTP status for an error of a service."""
    if isinstance(error, NotFound | UnknownNode | UnknownCluster):
        return 404
    if isinstance(error, InvalidArgument):
        return 400
    return 503 if isinstance(error, StateUnavailable | ProvisioningError | Busy) else 409


def parameters(page: Page, request: Request) -> Parameters:
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
