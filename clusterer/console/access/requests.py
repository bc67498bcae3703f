"""Reads the body of a request, bounded: a form, or a JSON object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from clusterer.errors import InvalidArgument

MOST_BODY = 262_144
"""Bytes of a request's body."""
BODY_S = 20.0
"""Time in which the body must have arrived."""
_MOST_FIELDS = 100

Form = Mapping[str, str]


class BodyTooLarge(InvalidArgument):
    """The request's body is larger than `MOST_BODY`; the answer is 413."""


class BodyTooLate(InvalidArgument):
    """The request's body has not arrived within `BODY_S`; the answer is 408."""


async def form_of(request: Request) -> Form:
    """Return the fields of a form (urlencoded), or of a JSON object whose values are scalars.

    Raises `InvalidArgument` for another body, `BodyTooLarge`, `BodyTooLate`.
    """
    try:
        async with asyncio.timeout(BODY_S):
            body = await _body_of(request)
    except TimeoutError:
        raise BodyTooLate(f"the request has not arrived within {BODY_S:g} s") from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _json(body)
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise InvalidArgument("the request's body must be a form or JSON: correct its Content-Type")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise InvalidArgument(
            f"the form is not valid: its fields must be URL-encoded ASCII, at most {_MOST_FIELDS}"
        ) from error
    return dict(pairs)


async def _body_of(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            raise BodyTooLarge(f"the request has more than {MOST_BODY} bytes")
    return bytes(body)


def _json(body: bytes) -> Form:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the request's body is no JSON: {error}") from error
    if not isinstance(found, dict) or len(found) > _MOST_FIELDS:
        raise InvalidArgument(
            f"the request's body must be a JSON object, at most {_MOST_FIELDS} fields"
        )
    if not all(isinstance(value, str | int) for value in found.values()):
        raise InvalidArgument("the values of the JSON object must be texts or whole numbers")
    form = {name: str(value) for name, value in found.items()}
    try:
        "".join((*form, *form.values())).encode()
    except UnicodeEncodeError as error:  # JSON can write halves of a character
        raise InvalidArgument("the JSON object has a text that is no Unicode") from error
    return form
