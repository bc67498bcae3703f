"""JSON-RPC 2.0 as in OpenSIPS 3's tools: calls from bytes, answers to bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from clusterer.ids import MAX_ID
from clusterer.mi.commands import (
    Command,
    Listed,
    MiError,
    Names,
    Recipes,
    Result,
    UnknownCommand,
)
from clusterer.mi.requests import BAD_PARAMETER, command_from_list, command_from_names

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

MAX_BATCH = 100
"""Calls in one batch."""

Id = str | int | float | None


@dataclass(frozen=True, slots=True)
class Call:
    """A valid call."""

    command: Command
    id: Id
    wants_answer: bool
    """False for a notification."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An invalid call."""

    code: int
    message: str
    id: Id = None
    detail: str = ""
    wants_answer: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """The calls of one body."""

    calls: tuple[Call | Refused, ...]
    is_batch: bool = False


class Handler(Protocol):
    """Executes commands for one instance."""

    async def handle(self, command: Command, via: str) -> Result | MiError:
        """Return the result of ``command``; ``via`` names the transport in the audit."""
        ...

    async def about(self, command: Command) -> dict[str, object]:
        """Return the log fields of the node in ``command``, if the command has one."""
        ...


async def answer(handler: Handler, body: bytes, via: str, limit: int | None = None) -> bytes:
    """Execute the calls in ``body`` in order; return the answer, empty if the client wants none.

    ``limit``: bytes that the transport can send. A longer answer is replaced by an error.
    """
    message = parse(body)
    outcomes = [
        await handler.handle(call.command, via) if isinstance(call, Call) else None
        for call in message.calls
    ]
    reply = encode(message, outcomes)
    if limit is None or len(reply) <= limit:
        return reply
    why = f"it has {len(reply)} bytes, {limit} can be sent: ask over HTTP or the FIFO"
    return encode(message, [MiError(500, "Answer too long", why)] * len(outcomes))


def parse(body: bytes) -> Message:
    """Return the calls in ``body``. Never raises: an invalid call is a `Refused`."""
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return Message((Refused(PARSE_ERROR, "Parse error", detail=str(error)[:200]),))
    if not isinstance(document, list):
        return Message((_call(document),))
    if not document:
        return _invalid("an empty batch")
    if len(document) > MAX_BATCH:
        return _invalid(f"a batch of more than {MAX_BATCH} calls")
    return Message(tuple(_call(item) for item in document), is_batch=True)


def encode(message: Message, outcomes: Sequence[Result | MiError | None]) -> bytes:
    """Return the answers, empty if the client wants none.

    ``outcomes``: the result of each call in order; None for a `Refused`.
    """
    answers = [
        _answer(call, outcome)
        for call, outcome in zip(message.calls, outcomes, strict=True)
        if call.wants_answer
    ]
    if not answers:
        return b""
    return json.dumps(answers if message.is_batch else answers[0]).encode()


def refusal(code: int, message: str, detail: str) -> bytes:
    """Return the answer to an invalid call."""
    return encode(Message((Refused(code, message, detail=detail),)), [None])


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _invalid(why: str, call_id: Id = None) -> Message:
    return Message((Refused(INVALID_REQUEST, "Invalid Request", call_id, why),))


def _call(item: object) -> Call | Refused:
    if not isinstance(item, dict):
        return Refused(INVALID_REQUEST, "Invalid Request", detail="a call must be an object")
    call_id, method = item.get("id"), item.get("method")
    if not _can_be_id(call_id):
        call_id = None
        why = "id must be a text, a number or null"
    elif item.get("jsonrpc") != "2.0":
        why = "jsonrpc must be '2.0'"
    elif not isinstance(method, str):
        why = "method must be a text"
    elif not isinstance(item.get("params", {}), dict | list):
        why = "params must be an object or a list"
    else:
        return _command(item, method, call_id)
    return Refused(INVALID_REQUEST, "Invalid Request", call_id, why)


def _can_be_id(value: object) -> bool:
    # Python reads 1e999 as infinity, which JSON cannot express.
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, bool) and isinstance(value, str | int | None)


def _command(item: Mapping[str, Any], method: str, call_id: Id) -> Call | Refused:
    wants_answer = "id" in item
    try:
        return Call(_built(method, item.get("params", {})), call_id, wants_answer)
    except UnknownCommand:
        code, message, detail = METHOD_NOT_FOUND, "Method not found", method[:60]
    except MiError as error:
        code, message = INVALID_PARAMS, "Invalid params"
        detail = error.detail or error.reason
    return Refused(code, message, call_id, detail, wants_answer)


def _built(method: str, params: Mapping[str, Any] | Sequence[Any]) -> Command:
    if isinstance(params, Mapping):
        return command_from_names(method, {name: _word(name, v) for name, v in params.items()})
    return command_from_list(method, [_word(f"parameter {n}", v) for n, v in enumerate(params, 1)])


def _word(name: str, value: object) -> str:
    """Return a parameter as text: OpenSIPS's tools send numbers as numbers or as text."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise MiError(400, BAD_PARAMETER, f"{name[:40]} must be a number or a text")
    if isinstance(value, int) and abs(value) > MAX_ID:
        raise MiError(400, BAD_PARAMETER, f"{name[:40]} must not be above {MAX_ID}")
    return str(value)


def _answer(call: Call | Refused, outcome: Result | MiError | None) -> dict[str, Any]:
    head = {"jsonrpc": "2.0", "id": call.id}
    if isinstance(call, Refused):
        return head | {"error": _error(call.code, call.message, call.detail)}
    if isinstance(outcome, MiError):
        return head | {"error": _error(outcome.code, outcome.reason, outcome.detail)}
    if outcome is None:
        return head | {"error": _error(INTERNAL_ERROR, "Internal error", "")}
    return head | {"result": _result(outcome)}


def _error(code: int, message: str, detail: str) -> dict[str, Any]:
    return {"code": code, "message": message} | ({"data": detail} if detail else {})


def _result(result: Result) -> object:
    """Return the result with the names of OpenSIPS 3."""
    if isinstance(result, Names):
        return result.names
    if isinstance(result, Recipes):
        return result.recipes
    if not isinstance(result, Listed):
        return "OK"
    return {
        "Clusters": [
            {"cluster_id": item.cluster_id, "Nodes": [asdict(node) for node in item.nodes]}
            for item in result.clusters
        ]
    }
