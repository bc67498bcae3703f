"""Commands from parameters of JSON-RPC, and the reply to `which`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clusterer.mi import jsonrpc
from clusterer.mi.commands import ListNodes, MiError, Names, Recipes, Reload, SetStatus, Which
from clusterer.mi.fifo import encode
from clusterer.mi.requests import tell

DOWN = SetStatus(1, 2, 0, "bin")
NAMES = tell(Which())


def parsed(method: str, params: object) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    (call,) = jsonrpc.parse(json.dumps(body).encode()).calls
    return call.command if isinstance(call, jsonrpc.Call) else call.detail


@pytest.mark.parametrize(
    "params",
    [
        [1, 2, 0],
        ["1", "2", "0"],
        ["1", "2", "0", "bin"],
        {"cluster_id": 1, "node_id": 2, "status": 0},
        {"cluster_id": "1", "machine_id": "2", "status": "0"},
        {"cluster_id": 1, "machine_id": 2, "status": 0, "protocol": "bin"},
        {"protocol": "BIN", "status": 0, "node_id": 2, "cluster_id": 1},
    ],
)
@pytest.mark.parametrize("method", ["clusterer_set_status", "clusterer:set_status"])
def test_mi_set_status_takes_names_of_opensips_2_and_3(method: str, params: object) -> None:
    assert parsed(method, params) == DOWN


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ([1, 0], "takes (cluster_id, node_id, status) or"),
        ([1, 2, 0, "bin", 5], "not 5 parameters"),
        ({"cluster_id": 1, "status": 0}, "node_id is missing"),
        ({"cluster_id": 1, "node_id": 2, "machine_id": 2, "status": 0}, "are the same"),
        ({"cluster_id": 1, "node_id": 2, "status": 0, "x" * 90: 1}, "xxx' is not a parameter"),
        ([1, 2, "2" * 900], "status must be 0 (down) or 1 (up)"),
        ([1, 2, 0, "x" * 900], "unknown protocol"),
        ([1, "x" * 900, 0], "node_id must be from 1 to"),
    ],
)
def test_wrong_parameters_are_named(params: object, why: str) -> None:
    detail = parsed("clusterer_set_status", params)
    assert why in detail
    assert len(detail) < 200


def test_mi_other_methods_take_no_parameters() -> None:
    nothing: tuple[object, ...] = ([], {})
    for params in nothing:
        assert parsed("clusterer_reload", params) == parsed("clusterer:reload", params) == Reload()
        assert parsed("clusterer:list", params) == ListNodes()
    assert "not 1 parameters" in parsed("clusterer_list", [1])
    assert "'a' is not a parameter" in parsed("clusterer_reload", {"a": 1})


def test_mi_which_names_every_method() -> None:
    assert isinstance(NAMES, Names)
    for name in NAMES.names:
        recipes = tell(Which(name))
        assert isinstance(recipes, Recipes)
        for recipe in recipes.recipes:
            values = ["bin" if word == "protocol" else "1" for word in recipe]
            assert not isinstance(parsed(name, values), str), (name, recipe)
            assert parsed(name, dict(zip(recipe, values, strict=True))) == parsed(name, values)
    assert parsed("which", {}) == Which()
    assert parsed("which", {"command": "which"}) == parsed("which", ["which"]) == Which("which")
    with pytest.raises(MiError, match="404 unknown MI command"):
        tell(Which("nosuch"))


def test_mi_which_in_json_and_lines_is_answered() -> None:
    message = jsonrpc.parse(b'{"jsonrpc": "2.0", "id": 1, "method": "which"}')
    recipes = tell(Which("clusterer_set_status"))
    assert json.loads(jsonrpc.encode(message, [recipes]))["result"] == [
        ["cluster_id", "node_id", "status"],
        ["cluster_id", "node_id", "status", "protocol"],
    ]
    assert "clusterer:list" in json.loads(jsonrpc.encode(message, [NAMES]))["result"]
    assert (
        encode(NAMES)
        == b"200 OK\nclusterer_list\nclusterer_reload\nclusterer_set_status\nwhich\n\n"
    )
