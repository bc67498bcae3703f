"""The answers of `/api/v1` beside a running cluster, compared with the OpenAPI file."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support import openapi
from tests.support.consoles import TIMEOUT_S
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.two_hosts import System, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("api") / "data") as started:
        yield started


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=TIMEOUT_S) as made:
        yield made


def all_answers(client: httpx.Client) -> dict[str, httpx.Response]:
    """Return an answer of each path, those about node 2 of cluster 1."""
    places = {"cluster_id": 1, "proto": "bin", "machine_id": 2}
    return {
        path: client.get(path.format(**places), params=_query(path))
        for path, methods in openapi.document()["paths"].items()
        if "get" in methods
    }


def _query(path: str) -> dict[str, str]:
    return {"receiver": "1"} if "packets" in path else {}


def faults(client: httpx.Client) -> list[str]:
    return [
        f"{path} {fault}"
        for path, answer in all_answers(client).items()
        for fault in ([] if answer.status_code == 200 else [answer.text])
        + openapi.faults(path, answer)
    ]


def test_api_answers_agree_with_the_openapi_file(system: System, client: httpx.Client) -> None:
    assert faults(client) == []
    system.kill_node_2()
    wait_until(lambda: condition(client) == "disabled", EVENTUALLY_S, "node 2 disabled")
    assert faults(client) == []
    system.start_node_2()
    wait_until(lambda: condition(client) == "up", EVENTUALLY_S, "node 2 up")
    wait_until(lambda: samples(client), EVENTUALLY_S, "samples of the last hour")
    assert faults(client) == []


def condition(client: httpx.Client) -> object:
    answer = client.get("/api/v1/clusters/1-bin")
    return next(each["condition"] for each in answer.json()["nodes"] if each["machine_id"] == 2)


def samples(client: httpx.Client) -> object:
    return client.get("/api/v1/clusters/1-bin/nodes/2/history").json()["samples"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/clusters/9-bin", 404),
        ("/api/v1/clusters/1-bin/nodes/9", 404),
        ("/api/v1/clusters/1-bin?page=x", 400),
        ("/api/v1/packets?receiver=9", 409),
        ("/api/v1/events?node=x", 400),
    ],
)
def test_api_errors_agree_with_the_openapi_file(
    client: httpx.Client, path: str, status: int
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    route = (
        path.partition("?")[0].replace("9-bin", "1-bin").replace("1-bin", "{cluster_id}-{proto}")
    )
    assert openapi.faults(route.replace("nodes/9", "nodes/{machine_id}"), answer) == []


def test_settings_under_up_have_the_sources_of_up(client: httpx.Client) -> None:
    found = {each["name"]: each for each in client.get("/api/v1/settings").json()["settings"]}
    assert found["data_dir"]["source"] == "command line"
    assert found["replicate_pipes_to"]["source"] == "command line"
    assert found["linger"]["source"] == "default"
