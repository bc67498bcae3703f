"""Answers of the console compared with its OpenAPI document."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from clusterer.console.openapi import document

__all__ = ["document", "faults"]

_URI = "urn:console"


def faults(route: str, answer: httpx.Response) -> list[str]:
    """Return what of an answer does not agree with the document."""
    described = document()["paths"][route]["get"]["responses"].get(str(answer.status_code))
    if described is None:
        return [f"status {answer.status_code}: {answer.text}"]
    if "$ref" in described:
        described = document()["components"]["responses"][described["$ref"].rpartition("/")[2]]
    schema = described["content"]["application/json"]["schema"]
    return [
        f"{error.json_path}: {error.message[:300]}"
        for error in _validator(schema["$ref"]).iter_errors(answer.json())
    ]


@cache
def _validator(reference: str) -> Draft202012Validator:
    resource: Resource[Any] = Resource.from_contents(document(), DRAFT202012)
    registry: Registry[Any] = Registry().with_resource(_URI, resource)
    return Draft202012Validator({"$ref": _URI + reference}, registry=registry)
