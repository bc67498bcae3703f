"""The OpenAPI document of the console: paths of pages and actions, described by openapi.toml."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from clusterer.console.actions import ACTIONS
from clusterer.console.actions.action import REASON, Action, Field
from clusterer.console.console import Console
from clusterer.console.page import Download, File, Page, Parameters, path_format
from clusterer.console.pages import PAGES

_PARTS = Path(__file__).with_suffix(".toml")
_FIELD = re.compile(r"(?P<type>[^:]*?)(?P<optional> \(optional\))?(?:: (?P<about>.*))?")
_SIMPLE: Mapping[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "id": {"type": "integer", "minimum": 1},
    "time": {"type": "number", "description": "UNIX seconds"},
    "time?": {
        "type": ["number", "null"],
        "description": "UNIX seconds; null if unknown or never",
    },
    "condition": {"type": "string", "enum": ["up", "probing", "disabled", "down"]},
    **{name: {"type": name} for name in ("integer", "number", "boolean", "object")},
}


@cache
def document() -> dict[str, Any]:
    """Return the document; raises `KeyError` for a page or parameter that openapi.toml lacks."""
    parts = tomllib.loads(_PARTS.read_text("utf-8"))
    paths = {path_format(page.api_path): {"get": _page(page, parts)} for page in PAGES}
    paths |= {
        path_format(f"/api/v1{each.path}"): {"post": _action(each, parts)} for each in ACTIONS
    }
    bases = parts["parts"] | parts["schemas"]
    schemas = {
        name: _object(fields | bases.get(fields.pop("include", ""), {}))
        for name, fields in parts["schemas"].items()
    }
    errors = {
        status: _answer(about, {"$ref": _reference("Error")})
        for status, about in parts["errors"].items()
    }
    return {
        "openapi": "3.1.0",
        "info": parts["info"],
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}, {}],
        "paths": paths,
        "components": {
            "securitySchemes": parts["security"],
            "responses": errors,
            "schemas": schemas,
        },
    }


def _page(page: Page, parts: Mapping[str, Any]) -> dict[str, Any]:
    about = parts["pages"][page.name]
    about = parts["pages"].get(about.pop("like", ""), {}) | about
    statuses = {"401", "503", *about.pop("errors", ())} | ({"400"} if page.query else set())
    query = about.pop("query", {})
    parameters = _of_path(page.path, parts)
    parameters += [_parameter("query", name, query[name]) for name in page.query]
    answer = {"$ref": _reference(about.pop("answer"))}
    return {
        "operationId": page.name,
        **about,
        "parameters": parameters,
        "responses": {"200": _answer("The content of the page.", answer)}
        | _refusals(statuses | ({"404"} if "{" in page.path else set())),
    }


def _action(action: Action, parts: Mapping[str, Any]) -> dict[str, Any]:
    about = parts["actions"][action.name]
    seen = {f"seen.{name}": _schema(parts["seen"][name]) for name in about.get("seen", ())}
    body = {
        "type": "object",
        "properties": {each.name: _input(each) for each in (*action.fields, REASON)}
        | seen
        | {"dry_run": _schema(parts["dry_run"])},
        "required": [*action.needed, "reason"],
    }
    done = {"$ref": _reference("Done")}
    return {
        "operationId": f"action:{action.name}",
        "summary": about["summary"],
        "parameters": _of_path(action.path, parts),
        "security": [{"token": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer("Done, or with dry_run planned.", done)}
        | _refusals(parts["errors"]),
    }


def _of_path(route: str, parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)", route)
    return [_parameter("path", name, parts["path"][name]) | {"required": True} for name in names]


def _parameter(place: str, name: str, text: str) -> dict[str, Any]:
    schema = _schema(text)
    return {"name": name, "in": place, "description": schema.pop("description"), "schema": schema}


def _input(given: Field) -> dict[str, Any]:
    """Return the schema of a form's field: a script sends numbers, and one of the choices."""
    about = {"description": given.about} if given.about else {}
    if given.kind == "choice":
        about = {"description": "; ".join(f"{value}: {label}" for value, label in given.choices)}
        return {"type": "integer", "enum": [int(value) for value, _ in given.choices]} | about
    if given.kind == "number":
        return {"type": "integer", "minimum": int(given.name.endswith("_id"))} | about
    return {"type": "string", "minLength": int(given.required), "maxLength": given.most} | about


def _object(fields: Mapping[str, str]) -> dict[str, Any]:
    required = [name for name, text in fields.items() if "(optional)" not in text]
    return {
        "type": "object",
        "properties": {name: _schema(text) for name, text in fields.items()},
        "required": required,
        "additionalProperties": False,
    }


def _schema(text: str) -> dict[str, Any]:
    """Return the schema of ``TYPE: description``."""
    match = _FIELD.fullmatch(text)
    assert match is not None  # noqa: S101 - every part of the pattern may be missing
    found = _type(match["type"])
    return found | {"description": match["about"]} if match["about"] else found


def _type(name: str) -> dict[str, Any]:
    if name in _SIMPLE:
        return dict(_SIMPLE[name])
    if name.startswith("["):
        item, _, most = name[1:].partition("]")
        return {"type": "array", "items": _type(item)} | ({"maxItems": int(most)} if most else {})
    if name.endswith("?"):
        found = _type(name[:-1])
        return found | {"type": [found["type"], "null"]}
    words = name.split(" | ")
    if words[0][:1].isupper():
        references = [{"$ref": _reference(word)} for word in words]
        return references[0] if len(words) == 1 else {"oneOf": references}
    return {"type": "string", "enum": words}


def _reference(schema: str) -> str:
    return f"#/components/schemas/{schema}"


def _answer(about: str, schema: Mapping[str, str]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _refusals(statuses: Iterable[str]) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}


def _load(_console: Console, _parameters: Parameters) -> File:
    return File(json.dumps(document(), indent=2).encode(), "application/json")


DOWNLOAD = Download("openapi", "/api/v1/openapi.json", _load)
