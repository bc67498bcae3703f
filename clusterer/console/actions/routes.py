"""The routes of actions: form, plan, change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from clusterer.console.access.user import user_of
from clusterer.console.actions.action import REASON, Action, Form, Given
from clusterer.console.console import Console
from clusterer.console.page import path_format, status_of
from clusterer.console.views import Views
from clusterer.errors import ClustererError, InvalidArgument
from clusterer.services.admin.set_status import require_reason

_SEEN = "seen."


class ActionRoutes:
    """Makes the routes of actions."""

    def __init__(self, console: Console, views: Views, actions: tuple[Action, ...]) -> None:
        self._console = console
        self._views = views
        self._actions = actions

    @property
    def routes(self) -> Iterator[Route]:
        """All routes."""
        for action in self._actions:
            for path, name, serve in (
                (action.path, "do", self._post),
                (f"{action.path}/check", "check", self._check),
                (f"/api/v1{action.path}", "api", self._api),
            ):
                endpoint = partial(serve, action)
                yield Route(path, endpoint, methods=["POST"], name=f"{name}:{action.name}")
            form = partial(self._form, action)
            yield Route(action.path, form, methods=["GET"], name=f"action:{action.name}")

    async def _form(self, action: Action, request: Request) -> Response:
        if not user_of(request).may_operate:
            title = action.title.format(**request.path_params)
            text = "A change needs a user with the role operate."
            return self._views.message(request, title, text, 403)
        found = await run_in_threadpool(action.load, self._console, request.path_params)
        return self._shown(request, action, found, found.values)

    async def _post(self, action: Action, request: Request) -> Response:
        form: Mapping[str, str] = request.state.form
        if form.get("step") == "back":
            return await self._again(request, action, "", 200)
        try:
            given = _given(action, form, user_of(request).by, dry_run=True)
            plan = await self._act(action, request, given)
            if form.get("step") != "do":
                return self._planned(request, action, plan)
            if _digest(plan) != form.get("planned"):
                changed = "The plan has changed meanwhile. Look at it again."
                return self._planned(request, action, plan, changed)
            given = _given(action, form, user_of(request).by, dry_run=False)
            done = await self._act(action, request, given)
        except ClustererError as error:
            return await self._again(request, action, str(error), status_of(error))
        return self._render(request, "action_done.html", action, sentences=done)

    async def _again(self, request: Request, action: Action, trouble: str, status: int) -> Response:
        """Show the form with what the operator gave, beside the present values."""
        try:
            found = await run_in_threadpool(action.load, self._console, request.path_params)
        except ClustererError as error:
            title = action.title.format(**request.path_params)
            return self._views.message(request, title, trouble or str(error), status_of(error))
        return self._shown(
            request, action, found, request.state.form, trouble=trouble, status=status
        )

    async def _check(self, action: Action, request: Request) -> Response:
        form, by = request.state.form, user_of(request).by
        try:
            given = _given(action, form, by, dry_run=True, check=True)
            plan = await self._act(action, request, given)
        except ClustererError as error:
            return JSONResponse({"error": str(error)})
        return JSONResponse({"will": plan})

    async def _api(self, action: Action, request: Request) -> Response:
        form: Mapping[str, str] = request.state.form
        dry_run = form.get("dry_run", "") not in ("", "0", "False", "false")
        given = _given(action, form, user_of(request).by, dry_run=dry_run, partly=True)
        done = await self._act(action, request, given)
        return JSONResponse({"will" if dry_run else "done": done})

    async def _act(self, action: Action, request: Request, given: Given) -> tuple[str, ...]:
        return await run_in_threadpool(action.act, self._console, request.path_params, given)

    def _shown(
        self,
        request: Request,
        action: Action,
        form: Form,
        values: Mapping[str, str],
        *,
        trouble: str = "",
        status: int = 200,
    ) -> Response:
        return self._render(
            request,
            "action.html",
            action,
            form=form,
            values={"reason": ""} | dict(form.values) | dict(values),
            fields=(*action.fields, REASON),
            trouble=trouble,
            status=status,
        )

    def _planned(
        self, request: Request, action: Action, plan: tuple[str, ...], changed: str = ""
    ) -> Response:
        kept = {
            name: value
            for name, value in request.state.form.items()
            if name not in ("csrf", "step", "planned")
        }
        return self._render(
            request,
            "action_plan.html",
            action,
            sentences=plan,
            kept=kept,
            planned=_digest(plan),
            changed=changed,
            status=409 if changed else 200,
        )

    def _render(
        self, request: Request, template: str, action: Action, status: int = 200, **values: object
    ) -> Response:
        parameters = request.path_params
        html = self._views.render(
            template,
            user=user_of(request),
            title=action.title.format(**parameters),
            action=action,
            here=request.url.path,
            back=path_format(action.back).format(**parameters),
            **values,
        )
        return HTMLResponse(html, status)


def _given(
    action: Action,
    form: Mapping[str, str],
    by: str,
    *,
    dry_run: bool,
    check: bool = False,
    partly: bool = False,
) -> Given:
    """Return what the operator gave. Raises `InvalidArgument` without a reason.

    ``check``: the operator still types, and has given no reason yet. ``partly``: only the
    fields that the action needs must be there.
    """
    reason = require_reason(form.get("reason", ""))
    if not reason and not check:
        raise InvalidArgument("reason: say why, for the other operators")
    names = [each.name for each in action.fields if not partly or each.name in form]
    missing = [name for name in action.needed if name not in form]
    if partly and missing:
        raise InvalidArgument(f"{missing[0]} is missing")
    values = {name: form.get(name, "").strip() for name in names}
    seen = {name.removeprefix(_SEEN): form[name] for name in form if name.startswith(_SEEN)}
    return Given(values, seen, by, reason, dry_run)


def _digest(plan: tuple[str, ...]) -> str:
    """Return a text that another plan has not; times in a plan do not count."""
    text = re.sub(r"\d+(\.\d+)? s\b", "", "\n".join(plan))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
