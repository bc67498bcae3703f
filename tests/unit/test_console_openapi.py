"""The OpenAPI file of the console: valid, and with every page and parameter."""

from __future__ import annotations

import re

import httpx
import pytest
from openapi_spec_validator import validate

from clusterer.console.actions import ACTIONS
from clusterer.console.actions.action import Action
from clusterer.console.page import Page
from clusterer.console.routes import PAGES
from tests.support import openapi


def test_openapi_file_is_valid() -> None:
    validate(openapi.document())


def test_openapi_paths_are_those_of_pages_and_actions() -> None:
    expected = [openapi.path_of(page.api_path) for page in PAGES]
    expected += [openapi.path_of(f"/api/v1{action.path}") for action in ACTIONS]
    assert sorted(openapi.document()["paths"]) == sorted(expected)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: str(action.name))
def test_openapi_bodies_are_those_of_the_action(action: Action) -> None:
    described = openapi.document()["paths"][openapi.path_of(f"/api/v1{action.path}")]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    found = [name for name in schema["properties"] if not name.startswith("seen.")]
    assert sorted(found) == sorted([*(each.name for each in action.fields), "reason", "dry_run"])
    of_path = [each["name"] for each in described.get("parameters", ())]
    assert of_path == re.findall(r"\{(\w+)", action.path)
    assert described["operationId"] == f"action:{action.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_openapi_parameters_are_those_of_the_page(page: Page) -> None:
    described = openapi.document()["paths"][openapi.path_of(page.api_path)]["get"]
    found = [(each["in"], each["name"]) for each in described.get("parameters", ())]
    of_path = re.findall(r"\{(\w+)", page.path)
    assert found == [("path", name) for name in of_path] + [("query", name) for name in page.query]
    assert described["operationId"] == page.name


def test_openapi_schemas_are_all_used() -> None:
    text = openapi.FILE.read_text(encoding="utf-8")
    for name in openapi.document()["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


@pytest.mark.parametrize(
    "body", [{}, {"settings": [{"name": "x"}]}, {"settings": [], "more": 1}, {"settings": None}]
)
def test_openapi_wrong_answer_is_found(body: object) -> None:
    assert openapi.faults("/api/v1/settings", httpx.Response(200, json=body))
