"""Actions of the console: form, plan, change, and what another operator did meanwhile."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clusterer.errors import ChangedMeanwhile
from clusterer.membership import Condition
from clusterer.provisioning.table import NewRow
from clusterer.services import Context, provision
from clusterer.services.admin import console_users, events, set_status
from clusterer.services.table import init_db, reload
from clusterer.settings import Settings
from clusterer.store import ClusterKey
from tests.support.consoles import Served, add_user, form_token, log_in, served
from tests.support.provisioning import provision as provision_rows

NODE = "/clusters/1-bin/nodes/2"
HOSTILE = "<script>alert(1)</script>\"'&\u202e\u2066 {{ 7*7 }}"


@pytest.fixture
def console(settings: Settings, context: Context) -> Iterator[Served]:
    """A console with the operators anna and olga, and the nodes 1 and 2."""
    init_db.run(context)
    provision_rows(context, NewRow(1, 1, "bin:127.0.0.1:5566"), NewRow(1, 2, "bin:127.0.0.2:5566"))
    reload.run(context)
    for name in ("anna", "olga"):
        add_user(settings, name)
    with served(settings) as made:
        yield made


@pytest.fixture
def anna(console: Served) -> httpx.Client:
    return operator(console, "anna")


def operator(console: Served, name: str) -> httpx.Client:
    client = console.client()
    assert log_in(client, name).status_code == 303
    return client


def fields(page: httpx.Response) -> dict[str, str]:
    """Return the fields of a page's last form, as a browser would send them."""
    form = page.text[page.text.rindex("<form") :]
    inputs = re.findall(r'<input[^>]* name="([^"]+)" value="([^"]*)"', form)
    found = {name: html.unescape(value) for name, value in inputs}
    for name, options in re.findall(r'<select[^>]* name="([^"]+)">(.*?)</select>', form, re.DOTALL):
        found[name] = re.findall(r'value="([^"]*)" selected', options)[0]
    return found


def begin(client: httpx.Client, path: str, **given: str) -> httpx.Response:
    """Fill in the form; return the page with the plan."""
    page = client.get(path)
    assert page.status_code == 200
    return client.post(path, data=fields(page) | {"reason": "maintenance", "step": "plan"} | given)


def confirm(client: httpx.Client, plan: httpx.Response) -> httpx.Response:
    """Press the button below the plan."""
    assert plan.status_code == 200, plan.text
    return client.post(plan.url.path, data=fields(plan) | {"step": "do"})


def sentences(page: httpx.Response) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<li><bdi>(.*?)</bdi>", page.text)]


def last_event(context: Context) -> Any:
    return events.of_nodes(context, events.Filter()).past(1)[-1]


def node(context: Context, machine_id: int) -> Any:
    return context.nodes.read(ClusterKey(1, "bin"), machine_id)[0]


def test_status_is_set_with_name_and_reason(context: Context, anna: httpx.Client) -> None:
    plan = begin(anna, f"{NODE}/status", status="0")
    assert sentences(plan)[0].startswith("Set node 2 of cluster 1 down")
    assert node(context, 2).condition.value == "up"
    done = confirm(anna, plan)
    assert sentences(done) == ["Node 2 of cluster 1 is down."]
    assert node(context, 2).condition.value == "down"
    event = last_event(context)
    assert (event.by, event.reason) == ("operator anna (console)", "maintenance")


def test_node_is_added_edited_and_removed(context: Context, anna: httpx.Client) -> None:
    plan = begin(anna, "/clusters/add", machine_id="3", url="bin:127.0.0.3:5566")
    assert "Add in table" in sentences(plan)[0]
    assert node(context, 3) is None
    assert "Added in table" in sentences(confirm(anna, plan))[0]
    assert node(context, 3).url == "bin:127.0.0.3:5566"
    path = "/clusters/1-bin/nodes/3"
    plan = begin(anna, f"{path}/edit", description="Node C", duration="60")
    assert "duration 30 → 60, description empty → Node C" in sentences(plan)[0]
    confirm(anna, plan)
    assert (node(context, 3).duration, node(context, 3).description) == (60, "Node C")
    event = last_event(context)
    assert (event.by, event.reason) == ("operator anna (console)", "maintenance")
    assert "Removed from table" in sentences(confirm(anna, begin(anna, f"{path}/remove")))[0]
    assert node(context, 3) is None
    assert anna.get(f"{path}/edit").status_code == 404


def test_reload_shows_the_difference_first(context: Context, anna: httpx.Client) -> None:
    provision_rows(context, NewRow(1, 3, "bin:127.0.0.3:5566"))
    plan = begin(anna, "/reload")
    assert "  added    cluster 1, node 3: bin:127.0.0.3:5566" in sentences(plan)
    assert node(context, 3) is None
    provision_rows(context, NewRow(1, 4, "bin:127.0.0.4:5566"))
    page = anna.post("/reload", data=fields(plan) | {"step": "do"})
    assert page.status_code == 409
    assert "changed meanwhile" in page.text
    assert node(context, 3) is None
    done = anna.post("/reload", data=fields(page) | {"step": "do"})
    assert done.status_code == 200
    assert node(context, 3)
    assert node(context, 4)
    assert last_event(context).reason == "maintenance"


def test_forget_says_what_it_deletes(context: Context, anna: httpx.Client) -> None:
    context.redis.hset("clusterer:modules:9", "heartbeat", 1)
    context.redis.sadd("clusterer:instances", 9)
    plan = begin(anna, "/forget", machine_id="9")
    assert sentences(plan)[0].startswith("Delete the data of machine_id 9")
    assert confirm(anna, plan).status_code == 200
    assert not context.redis.exists("clusterer:modules:9")
    assert begin(anna, "/forget", machine_id="2").status_code == 409
    assert begin(anna, "/forget", machine_id="x").status_code == 400


# -- two operators ---------------------------------------------------------------------------------


def test_edit_of_two_operators_overwrites_nothing(context: Context, console: Served) -> None:
    anna, olga = operator(console, "anna"), operator(console, "olga")
    first = anna.get(f"{NODE}/edit")
    confirm(olga, begin(olga, f"{NODE}/edit", description="by olga"))
    given = fields(first) | {"description": "by anna", "reason": "mine", "step": "plan"}
    page = anna.post(f"{NODE}/edit", data=given)
    assert page.status_code == 409
    assert "description by olga" in page.text
    assert 'value="by anna"' in page.text, "what anna gave stays"
    assert node(context, 2).description == "by olga"
    again = anna.post(f"{NODE}/edit", data=fields(page) | {"step": "plan"})
    assert "description by olga → by anna" in sentences(again)[0]
    confirm(anna, again)
    assert node(context, 2).description == "by anna"


def test_edit_changed_between_plan_and_button_is_shown(context: Context, console: Served) -> None:
    anna, olga = operator(console, "anna"), operator(console, "olga")
    plan = begin(anna, f"{NODE}/edit", description="by anna")
    confirm(olga, begin(olga, f"{NODE}/edit", duration="99"))
    page = anna.post(f"{NODE}/edit", data=fields(plan) | {"step": "do"})
    assert page.status_code == 409
    assert "duration 99" in page.text
    assert node(context, 2).description == ""


def test_status_of_two_operators_is_not_overwritten(context: Context, console: Served) -> None:
    anna, olga = operator(console, "anna"), operator(console, "olga")
    plan = begin(anna, f"{NODE}/status", status="1")
    confirm(olga, begin(olga, f"{NODE}/status", status="0"))
    page = anna.post(f"{NODE}/status", data=fields(plan) | {"step": "do"})
    assert page.status_code == 409
    assert "another operator has set it down meanwhile" in page.text
    assert node(context, 2).condition.value == "down"


def test_remove_of_an_edited_node_is_refused(context: Context, console: Served) -> None:
    anna, olga = operator(console, "anna"), operator(console, "olga")
    plan = begin(anna, f"{NODE}/remove")
    confirm(olga, begin(olga, f"{NODE}/edit", url="bin:127.0.0.9:5566"))
    assert anna.post(f"{NODE}/remove", data=fields(plan) | {"step": "do"}).status_code == 409
    assert node(context, 2).url == "bin:127.0.0.9:5566"


# -- checks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"url": "bin:nonsense"}, "url: "),
        ({"machine_id": "x"}, "machine_id: "),
        ({"machine_id": "1"}, "has a node 1 already"),
        ({"description": "x" * 65_536}, "description: 65536 characters, the column holds 64"),
        ({"duration": "-1"}, "duration: "),
        ({"cluster_id": "9" * 30}, "cluster_id: "),
        ({"description": "a\x00b"}, "description: has a line break"),
        ({"reason": ""}, "reason: say why"),
        ({"reason": "x" * 501}, "the reason has 501 characters"),
    ],
)
def test_wrong_values_are_refused_as_by_the_command(
    context: Context, anna: httpx.Client, given: dict[str, str], text: str
) -> None:
    good = {"machine_id": "3", "url": "bin:127.0.0.3:5566"}
    page = begin(anna, "/clusters/add", **(good | given))
    assert page.status_code == 400
    (shown,) = re.findall(r'role="alert"><bdi>(.*?)</bdi>', page.text, re.DOTALL)
    assert text in html.unescape(shown)
    assert node(context, 3) is None
    answer = anna.post("/clusters/add/check", data=fields(page) | {"step": "plan"}).json()
    if "reason" in given and not given["reason"]:
        assert list(answer) == ["will"], "a reason is not asked for while the operator types"
    else:
        assert text in answer["error"]


def test_hostile_texts_are_escaped(context: Context, anna: httpx.Client) -> None:
    plan = begin(anna, f"{NODE}/edit", description=HOSTILE, reason=HOSTILE * 10)
    pages = [plan, confirm(anna, plan), anna.get(f"{NODE}/edit"), anna.get(f"{NODE}/remove")]
    assert node(context, 2).description == HOSTILE
    pages += [anna.get(path) for path in (NODE, "/overview", "/clusters/1-bin", "/events")]
    for page in pages:
        assert page.status_code == 200
        assert "<script>alert" not in page.text
    assert anna.get(f"{NODE}/edit?x={HOSTILE}").status_code == 200
    for path in ("/clusters/1-<script>/nodes/2/status", f"/{HOSTILE}", "/live/<script>"):
        assert "<script>alert" not in anna.get(path).text


def test_action_needs_the_role_operate(settings: Settings, console: Served) -> None:
    add_user(settings, "vera", "view")
    vera = operator(console, "vera")
    for path in (f"{NODE}/status", f"{NODE}/edit", "/clusters/add", "/reload", "/forget"):
        assert vera.get(path).status_code == 403
        csrf = form_token(vera.get("/settings").text)
        assert vera.post(path, data={"csrf": csrf, "reason": "x"}).status_code == 403
    with served(Settings(redis_url=settings.redis_url, data_dir=settings.data_dir)) as other:
        assert other.client().get("/reload").status_code == 303


# -- scripts ---------------------------------------------------------------------------------------


@pytest.fixture
def script(context: Context, console: Served) -> httpx.Client:
    token = console_users.add_token(context, "deploy", "operate")
    return console.client(headers={"Authorization": f"Bearer {token}"})


def test_script_sets_a_status(context: Context, script: httpx.Client) -> None:
    path = f"/api/v1{NODE}/status"
    body = {"status": 0, "reason": "upgrade"}
    assert script.post(path, json=body | {"dry_run": True}).json()["will"]
    assert node(context, 2).condition.value == "up"
    answer = script.post(path, json=body)
    assert answer.json() == {"done": ["Node 2 of cluster 1 is down."]}
    assert last_event(context).by == "operator deploy (console token)"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"status": "0"}, 400),
        ({"reason": "x"}, 400),
        ({"status": "2", "reason": "x"}, 400),
        ({"status": "0", "reason": "x", "seen.condition": "down"}, 409),
        ({"status": "0", "reason": "x", "seen.condition": "y"}, 400),
    ],
)
def test_script_gets_errors_as_json(
    context: Context, script: httpx.Client, body: dict[str, str], status: int
) -> None:
    answer = script.post(f"/api/v1{NODE}/status", json=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert node(context, 2).condition.value == "up"


def test_script_edits_only_what_it_names(context: Context, script: httpx.Client) -> None:
    body = {"description": "by a script", "reason": "x"}
    assert script.post(f"/api/v1{NODE}/edit", json=body).status_code == 200
    found = node(context, 2)
    assert (found.description, found.url) == ("by a script", "bin:127.0.0.2:5566")


def test_script_adds_node_with_defaults(context: Context, script: httpx.Client) -> None:
    body = {"cluster_id": 1, "machine_id": 3, "url": "bin:127.0.0.3:5566", "reason": "x"}
    assert script.post("/api/v1/clusters/add", json=body).status_code == 200
    assert node(context, 3).duration == 30
    del body["url"]
    refused = script.post("/api/v1/clusters/add", json=body)
    assert (refused.status_code, refused.json()) == (400, {"error": "url is missing"})


def test_session_is_no_token_for_scripts(anna: httpx.Client) -> None:
    body = {"status": "0", "reason": "x"}
    assert anna.post(f"/api/v1{NODE}/status", json=body).status_code == 403


# -- the services beneath --------------------------------------------------------------------------


def test_set_status_and_edit_compare_what_was_seen(context: Context, console: Served) -> None:
    with pytest.raises(ChangedMeanwhile, match="is up now"):
        set_status.run(context, 1, 2, 1, "bin", by="x", seen=Condition.DOWN)
    with pytest.raises(ChangedMeanwhile, match="now: duration 30"):
        provision.edit(context, (1, 2), {"duration": 9}, by="x", seen={"duration": "8"})
    changes = provision.edit(context, (1, 2), {"duration": 9}, by="x", dry_run=True)
    assert changes.changed
    assert node(context, 2).duration == 30
