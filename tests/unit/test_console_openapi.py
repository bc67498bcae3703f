"""The OpenAPI document of the console: valid, with all that openapi.toml describes."""

from __future__ import annotations

import json
import tomllib

import httpx
import pytest
from openapi_spec_validator import validate

from clusterer.console import openapi
from clusterer.console.actions import ACTIONS
from clusterer.console.pages import PAGES
from tests.support.openapi import faults

PARTS = tomllib.loads(openapi._PARTS.read_text("utf-8"))


def test_openapi_document_is_valid() -> None:
    validate(openapi.document())


def test_openapi_parts_are_all_used() -> None:
    text = json.dumps(openapi.document())
    assert [n for n in PARTS["schemas"] if f'"#/components/schemas/{n}"' not in text] == []
    assert PARTS["pages"].keys() == {page.name for page in PAGES}
    assert PARTS["actions"].keys() == {action.name for action in ACTIONS}
    for page in PAGES:
        described = PARTS["pages"][page.name]
        assert described.get("query", {}).keys() <= set(page.query)


def test_openapi_field_has_type_choices_and_description() -> None:
    schemas = openapi.document()["components"]["schemas"]
    line = schemas["NodeLine"]["properties"]
    assert line["cluster_id"] == {"type": "integer", "minimum": 1}
    assert line["sent_to_per_s"]["items"] == {"type": ["number", "null"]}
    assert schemas["RedisServer"]["properties"]["role"]["enum"] == ["primary", "replica"]
    assert schemas["Packets"]["properties"]["packets"]["maxItems"] == 100
    assert "sender" in schemas["Event"]["properties"]
    assert "sender" not in schemas["Event"]["required"]


@pytest.mark.parametrize(
    "body", [{}, {"settings": [{"name": "x"}]}, {"settings": [], "more": 1}, {"settings": None}]
)
def test_openapi_wrong_answer_is_found(body: object) -> None:
    assert faults("/api/v1/settings", httpx.Response(200, json=body))
