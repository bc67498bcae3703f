"""The pages Packets, Calls and contacts, Events, Doctor and Settings, as HTML and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import httpx
import pytest
import redis

from clusterer.listener import Listener
from clusterer.payloads import ProfileCount, ProfileCounts
from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.services.admin.recording import Recording
from clusterer.services.doctor import shared_run
from clusterer.settings import Settings
from clusterer.store import keys
from tests.support import openapi
from tests.support.consoles import Served, served
from tests.support.frames import frame
from tests.support.listening import peer, serving
from tests.support.observing import call, contact, observing
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.seeding import make_node, put_node

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def console(settings: Settings) -> Iterator[Served]:
    with served(settings) as made:
        yield made


@pytest.fixture
def client(console: Served) -> Iterator[httpx.Client]:
    with console.client() as made:
        yield made


def read(client: httpx.Client, path: str, **query: object) -> dict:  # type: ignore[type-arg]
    """Return the JSON of a page, which agrees with the OpenAPI file."""
    answer = client.get(f"/api/v1{path}", params={k: str(v) for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    assert openapi.faults(f"/api/v1{path}", answer) == []
    found: dict = answer.json()  # type: ignore[type-arg]
    return found


def page(client: httpx.Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


# -- packets --------------------------------------------------------------------------------------


def test_packets_are_filtered_paused_and_escaped(
    client: httpx.Client, listener: Listener, port: int, redis_client: redis.Redis
) -> None:
    with serving(listener), peer(port) as connection:
        wait_until(lambda: redis_client.hexists(keys.modules(1), "heartbeat"), EVENTUALLY_S)
        assert read(client, "/packets")["receiver"] == 1
        wait_until(lambda: listener._capture.active, EVENTUALLY_S)
        connection.sendall(
            frame(kind=5, sender=2)
            + frame(kind=6, sender=3)
            + frame(kind=7, sender=2, module=SCRIPT)
        )
        wait_until(lambda: read(client, "/packets")["newest"] == 3, EVENTUALLY_S)
        found = read(client, "/packets")["packets"]
        assert [each["type"] for each in found] == [7, 6, 5]
        assert [each["node"] for each in found] == [2, 3, 2]
        by_node = read(client, "/packets", node="3, 9")
        assert [each["type"] for each in by_node["packets"]] == [6]
        by_module = read(client, "/packets", module=SCRIPT, type="5,7")
        assert [each["type"] for each in by_module["packets"]] == [7]
        paused = read(client, "/packets/paused", receiver=1, until=1)
        assert [each["type"] for each in paused["packets"]] == [5]
        html = page(client, "/packets")
        assert SCRIPT not in html
        assert "&lt;script&gt;" in html


def test_packets_without_instance_say_so(client: httpx.Client) -> None:
    assert "start <code>clusterer node</code>" in page(client, "/packets")


def test_packets_of_several_instances_ask_for_one(
    client: httpx.Client, redis_client: redis.Redis
) -> None:
    redis_client.sadd(keys.INSTANCES, 1, 2)
    assert "Choose an instance" in page(client, "/packets")
    assert client.get("/packets", params={"receiver": 2}).status_code == 409


@pytest.mark.parametrize(
    "query", ["node=x", "node=0", "type=99999999999", "until=-1", "receiver=1e3", "node=1,,²"]
)
def test_packets_with_wrong_filter_are_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/api/v1/packets?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


def test_packets_download_is_a_recording(
    client: httpx.Client, listener: Listener, port: int, redis_client: redis.Redis, tmp_path: Path
) -> None:
    with serving(listener), peer(port) as connection:
        wait_until(lambda: redis_client.hexists(keys.modules(1), "heartbeat"), EVENTUALLY_S)
        read(client, "/packets")
        wait_until(lambda: listener._capture.active, EVENTUALLY_S)
        connection.sendall(frame(kind=5, sender=2) + frame(kind=6, sender=3))
        wait_until(lambda: read(client, "/packets")["newest"] == 2, EVENTUALLY_S)
        answer = client.get("/packets/recording?receiver=1&type=6")
    assert answer.status_code == 200
    assert "instance-1.recording" in answer.headers["content-disposition"]
    path = tmp_path / "recording"
    path.write_bytes(answer.content)
    assert [each.packet.type for each in Recording(path)] == [6]


# -- calls and contacts ---------------------------------------------------------------------------


def test_calls_without_observers_say_what_to_do(client: httpx.Client) -> None:
    assert read(client, "/calls")["listings"] == []
    assert "No instance has observers" in page(client, "/calls")


def test_calls_and_contacts_are_searchable_and_escaped(
    settings: Settings, client: httpx.Client
) -> None:
    with observing(settings) as running, peer(running.port, machine_id=1) as connection:
        for message in (
            call(b"call-1", from_uri=f"sip:{SCRIPT}@example.net".encode()),
            call(b"call-2"),
            contact(b"sip:a@192.0.2.1", user_agent=b"Phone", expires=2**63 - 1),
            ProfileCounts((ProfileCount(b"caller", b"sipp", 3),)),
        ):
            connection.sendall(message.encode(1).encode())
        wait_until(
            lambda: entries(client) == {"calls": 2, "contacts": 1, "profiles": 1}, EVENTUALLY_S
        )
        found = read(client, "/calls")
        assert (found["receiver"], found["cluster_id"], found["kind"]) == (2, 1, "calls")
        assert [each["call_id"] for each in found["entries"]] == ["call-2", "call-1"]
        found = read(client, "/calls", find="SCRIPT>")
        assert [each["call_id"] for each in found["entries"]] == ["call-1"]
        assert (found["matching"], found["total"]) == (1, 2)
        html = page(client, "/calls")
        assert SCRIPT not in html
        assert "&lt;script&gt;" in html
        assert "UNIX time 9223372036854775808" in page(client, "/calls?kind=contacts")
        assert "sipp" in page(client, "/calls?kind=profiles&receiver=2&cluster=1")
        assert "no such listing" in page(client, "/calls?receiver=9")


def entries(client: httpx.Client) -> dict[str, int]:
    return {each["kind"]: each["entries"] for each in read(client, "/calls")["listings"]}


# -- events ---------------------------------------------------------------------------------------


def test_events_show_reason_author_and_link(
    client: httpx.Client, context: Context, redis_client: redis.Redis
) -> None:
    put_node(redis_client, make_node(2))
    put_node(redis_client, make_node(3))
    set_status.run(context, 1, 2, 0, "bin", by=f"operator {SCRIPT}", reason="kernel update")
    set_status.run(context, 1, 3, 0, "bin", by="operator bob", reason="\u202e\"'" + SCRIPT)
    found = wait_until(lambda: read(client, "/events")["events"], EVENTUALLY_S)
    assert [(each["kind"], each["machine_id"]) for each in found] == [("node", 3), ("node", 2)]
    (one,) = read(client, "/events", find="KERNEL")["events"]
    assert (one["before"], one["after"], one["reason"]) == ("up", "down", "kernel update")
    assert read(client, "/events", kind="paths")["events"] == []
    assert len(read(client, "/events", cluster=1, node=2, after="1h")["events"]) == 1
    html = page(client, "/events")
    assert SCRIPT not in html
    assert 'href="/clusters/1-bin/nodes/2"' in html


@pytest.mark.parametrize("query", ["kind=x", "node=x", "after=yesterday"])
def test_events_with_wrong_filter_are_refused(client: httpx.Client, query: str) -> None:
    assert client.get(f"/events?{query}").status_code == 400


# -- doctor and settings --------------------------------------------------------------------------


def test_doctor_shows_every_check_with_advice(client: httpx.Client) -> None:
    read(client, "/doctor")
    found = wait_until(lambda: ended(client), EVENTUALLY_S, "the end of the first run")
    levels = [each["level"] for each in found["checks"]]
    assert levels == sorted(levels, key=["error", "warn", "skipped", "ok"].index)
    assert sum(found["counts"].values()) == len(levels) > 10
    assert all(each["advice"] for each in found["checks"] if each["level"] in {"error", "warn"})
    html = page(client, "/doctor")
    assert found["checks"][0]["check"] in html


def ended(client: httpx.Client) -> dict | None:  # type: ignore[type-arg]
    found = read(client, "/doctor")
    return found if found["took_s"] is not None else None


def test_settings_show_source_and_mask_secrets(settings: Settings) -> None:
    secret = "hunter2"
    chosen = replace(settings, db_url=f"mysql://opensips:{secret}@db.example.net/opensips")
    with served(chosen) as made, made.client() as client:
        made.app.console.origins = {"db_url": "CLUSTERER_DB_URL_FILE"}
        found = {each["name"]: each for each in read(client, "/settings")["settings"]}
        html = page(client, "/settings")
    assert found["db_url"]["value"] == "mysql+pymysql://opensips:***@db.example.net/opensips"
    assert found["db_url"]["source"] == "CLUSTERER_DB_URL_FILE"
    assert (found["linger"]["value"], found["linger"]["source"]) == ("5", "default")
    assert found.keys() == {item.name for item in fields(Settings)}
    assert secret not in html


def test_doctor_runs_again_once_per_request(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_run, "PAUSE_S", 0.0)
    first = wait_until(lambda: ended(client), EVENTUALLY_S)
    link = f'href="/doctor?run={first["run"]}"'
    assert link in page(client, "/doctor")
    page(client, f"/doctor?run={first['run']}")
    second = wait_until(lambda: later(client, first["run"]), EVENTUALLY_S)
    assert second["run"] == first["run"] + 1
    page(client, f"/doctor?run={first['run']}")
    assert read(client, "/doctor")["run"] == second["run"]


def later(client: httpx.Client, run: int) -> dict | None:  # type: ignore[type-arg]
    found = read(client, "/doctor")
    return found if found["run"] > run and found["running_since"] is None else None


def test_openapi_file_is_served(client: httpx.Client) -> None:
    answer = client.get("/api/v1/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == openapi.document()
