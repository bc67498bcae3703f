"""Access to the console: users, sessions, tokens, forms, headers."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from starlette.routing import Mount, Route

from clusterer.console import server
from clusterer.console.access import requests, sessions
from clusterer.console.access.attempts import MOST_PER_ADDRESS
from clusterer.console.access.headers import ALWAYS
from clusterer.console.access.requests import MOST_BODY
from clusterer.console.access.signing_key import signing_key
from clusterer.console.app import App
from clusterer.console.console import Console
from clusterer.console.pages import PAGES
from clusterer.console.server import Listen, require_users
from clusterer.errors import ClustererError
from clusterer.services import Context
from clusterer.services.admin import console_users
from clusterer.settings import Settings
from clusterer.store.console_users import USER
from tests.support.consoles import (
    PASSWORD,
    Served,
    Source,
    add_user,
    form_token,
    log_in,
    served,
    watching,
)
from tests.support.processes import EVENTUALLY_S, wait_until

PROXIED = Listen(port=0, trusted_proxies=("127.0.0.1/32",))


@pytest.fixture
def console(settings: Settings) -> Iterator[Served]:
    """A console with the users anna (operate) and bert (view)."""
    add_user(settings)
    add_user(settings, "bert", "view")
    with served(settings, (*PAGES, Source().page)) as made:
        yield made


def paths(app: App, method: str) -> list[str]:
    """Return a path of each route, with numbers for the parameters."""
    found = []
    for route in app.starlette.routes:
        assert isinstance(route, Route | Mount)
        if isinstance(route, Route) and method in (route.methods or ()):
            found.append(re.sub(r"\{(\w+)(:int)?\}", lambda m: "1" if m[2] else "bin", route.path))
    return found


@pytest.fixture
def anna(console: Served) -> Iterator[httpx.Client]:
    with console.client() as client:
        assert log_in(client).status_code == 303
        yield client


# -- every route -----------------------------------------------------------------------------------


def test_access_without_a_session_is_refused_everywhere(console: Served) -> None:
    with console.client() as client:
        for path in paths(console.app, "GET"):
            response = client.get(path)
            if path.startswith(("/api/", "/live/")):
                assert response.status_code == 401, path
                assert list(response.json()) == ["error"]
            elif path == "/login":
                assert response.status_code == 200
            else:
                assert response.status_code == 303, path
                assert response.headers["location"].startswith("/login?next=%2F"), path
        for path in paths(console.app, "POST"):
            expected = 403 if not path.startswith("/api/") else 401
            assert client.post(path, data={}).status_code == expected, path


@pytest.mark.parametrize("token", ["x", "grafana.x", ".", "grafana." + "x" * 10_000, "ä.ö"])
def test_access_with_a_wrong_token_is_refused(
    settings: Settings, console: Served, token: str
) -> None:
    with contextlib.closing(Context(settings)) as context:
        console_users.add_token(context, "grafana", "operate")
    with console.client() as client:
        for method in ("GET", "POST"):
            for path in paths(console.app, method):
                headers = [(b"Authorization", f"Bearer {token}".encode())]
                assert client.request(method, path, headers=headers).status_code == 401, path


def test_access_role_view_changes_nothing(settings: Settings, console: Served) -> None:
    with contextlib.closing(Context(settings)) as context:
        token = console_users.add_token(context, "grafana", "view")
    with console.client() as client:
        assert log_in(client, "bert").status_code == 303
        csrf = form_token(client.get("/settings").text)
        for path in paths(console.app, "POST"):
            if path not in ("/login", "/logout"):
                assert client.post(path, data={"csrf": csrf}).status_code == 403, path
    with console.client(headers={"Authorization": f"Bearer {token}"}) as client:
        assert client.get("/api/v1/settings").status_code == 200
        assert client.get("/settings").status_code == 401, "tokens are for scripts"
        for path in paths(console.app, "POST"):
            assert client.post(path, data={}).status_code in (401, 403), path


def test_access_without_form_token_changes_nothing(console: Served, anna: httpx.Client) -> None:
    other = console.client()
    log_in(other)
    foreign = form_token(other.get("/settings").text)
    own = form_token(anna.get("/settings").text)
    for path in paths(console.app, "POST"):
        for csrf in ("", "x", foreign):
            if path != "/login":
                assert anna.post(path, data={"csrf": csrf}).status_code == 403, path
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert anna.post(path, data={"csrf": own}, headers=headers).status_code == 403
    assert anna.get("/settings").status_code == 200


def test_access_every_answer_has_the_headers(console: Served, anna: httpx.Client) -> None:
    found = [anna.get(path) for path in ("/settings", "/api/v1/settings", "/nix", "/static/nix")]
    found += [console.client().get("/settings"), anna.post("/logout"), anna.get("/static/live.js")]
    for response in found:
        for name, value in ALWAYS.items():
            assert response.headers[name] == value, response.url
        assert "server" not in response.headers
        cached = response.url.path == "/static/live.js"
        assert ("immutable" in response.headers["cache-control"]) == cached
    assert "unsafe" not in ALWAYS["Content-Security-Policy"]


# -- sessions --------------------------------------------------------------------------------------


def test_login_cookie_is_protected(console: Served) -> None:
    with console.client() as client:
        for response in (client.get("/login"), log_in(client)):
            cookie = response.headers["set-cookie"]
            assert "httponly" in cookie.lower()
            assert "samesite=strict" in cookie.lower()
            assert "secure" not in cookie.lower()
            assert "anna" not in cookie


def test_login_cookie_is_secure_behind_a_proxy_with_tls(settings: Settings) -> None:
    add_user(settings)
    with served(settings, listen=PROXIED) as console:
        with console.client(headers={"X-Forwarded-Proto": "https"}) as client:
            assert "secure" in client.get("/login").headers["set-cookie"].lower()
        with console.client(headers={"Host": "console.example.net"}) as client:
            assert client.get("/login").status_code == 200


def test_login_wrong_password_or_name_is_refused_alike(console: Served) -> None:
    with console.client() as client:
        texts = set()
        for name, password in (("anna", "wrong password"), ("nix", PASSWORD), ("anna", "")):
            response = log_in(client, name, password)
            assert response.status_code == 401
            assert password not in response.text or not password
            texts.add(re.findall(r'role="alert">([^<]*)<', response.text)[0])
        assert texts == {"Name or password is wrong."}
        assert client.get("/settings").status_code == 303


def test_login_is_rate_limited(console: Served) -> None:
    with console.client() as client:
        for _ in range(MOST_PER_ADDRESS):
            assert log_in(client, "anna", "wrong").status_code == 401
        response = log_in(client)
        assert response.status_code == 429
        assert 0 < int(response.headers["retry-after"]) <= 60


def test_login_of_a_known_browser_is_not_locked_out(console: Served, anna: httpx.Client) -> None:
    with console.client() as stranger:
        for _ in range(MOST_PER_ADDRESS):
            assert log_in(stranger, "anna", "wrong").status_code == 401
        assert log_in(stranger).status_code == 429
    assert log_in(anna).status_code == 303
    assert log_in(anna, "bert").status_code == 429, "the browser is known for anna only"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/settings?q=1", "/settings?q=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("/login", "/"),
    ],
)
def test_login_leads_to_pages_of_the_console_only(
    console: Served, target: str, expected: str
) -> None:
    with console.client() as client:
        page = client.get("/login", params={"next": target})
        fields = {"csrf": form_token(page.text), "name": "anna", "password": PASSWORD}
        response = client.post("/login", data=fields | {"next": target})
        assert (response.status_code, response.headers["location"]) == (303, expected)


def test_logout_ends_the_session_for_a_kept_cookie(console: Served, anna: httpx.Client) -> None:
    kept = dict(anna.cookies)
    csrf = form_token(anna.get("/settings").text)
    assert anna.post("/logout", data={"csrf": csrf}).headers["location"] == "/login"
    with console.client(cookies=kept) as thief:
        assert thief.get("/settings").status_code == 303
    assert log_in(anna).status_code == 303
    assert anna.get("/settings").status_code == 200


def test_session_of_a_removed_user_ends_at_once(
    settings: Settings, console: Served, anna: httpx.Client
) -> None:
    with contextlib.closing(Context(settings)) as context, watching(anna, "/source") as events:
        events.next()
        console_users.remove(context, USER, "anna")
        assert anna.get("/settings").status_code == 303
        assert events.next("goodbye")
        console_users.add_user(context, "anna", "operate", "another password")
    assert anna.get("/settings").status_code == 303, "the session was of the removed user"


def test_session_forged_or_of_another_console_is_refused(
    settings: Settings, console: Served, anna: httpx.Client, tmp_path: Path
) -> None:
    name = console.app.login._sessions.cookie
    value = anna.cookies[name]
    for wrong in (value[:-2] + "AA", "x", "", value.partition(".")[0], "é"):
        with console.client(headers=[(b"Cookie", f"{name}={wrong}".encode())]) as client:
            assert client.get("/settings").status_code == 303
    other = Settings(redis_url=settings.redis_url, data_dir=str(tmp_path / "other"))
    with served(other) as second, second.client() as client:
        mark = second.app.login._sessions.cookie
        assert mark != name
        headers = {"Cookie": f"{mark}={value}"}
        assert client.get("/settings", headers=headers).status_code == 303


def test_login_is_not_taken_from_another_browsers_form(console: Served) -> None:
    with console.client() as attacker, console.client() as victim:
        csrf = form_token(attacker.get("/login").text)
        victim.get("/login")
        fields = {"csrf": csrf, "name": "anna", "password": PASSWORD}
        assert victim.post("/login", data=fields).status_code == 403


def test_login_cookie_of_odd_characters_is_refused(console: Served) -> None:
    with console.client() as client:
        fields = {"csrf": form_token(client.get("/login").text), "name": "anna"}
        cookie = console.app.login._sessions.login_cookie.encode() + b"=\xe9"
        client.cookies.clear()
        response = client.post("/login", data=fields, headers=[(b"Cookie", cookie)])
        assert response.status_code == 403


def test_session_that_has_lasted_its_time_ends_streams(
    console: Served, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watching(anna, "/source") as events:
        events.next()
        monkeypatch.setattr(sessions, "LASTS_S", -1)
        assert events.next("goodbye")


# -- without users ---------------------------------------------------------------------------------


def test_console_without_users_shows_and_changes_nothing(settings: Settings) -> None:
    with served(settings, (*PAGES, Source().page)) as console, console.client() as client:
        assert client.get("/settings").status_code == 200
        assert "view only" in client.get("/settings").text
        for path in paths(console.app, "POST"):
            assert client.post(path, data={}).status_code == 403, path
        with watching(client, "/source") as events:
            events.next()
            add_user(settings)
            assert client.get("/settings").status_code == 303
            assert events.next("goodbye")


def test_console_for_other_hosts_needs_users(settings: Settings) -> None:
    app = App(Console(settings), local=False)
    for listen in (Listen("192.0.2.1"), PROXIED):
        with pytest.raises(ClustererError, match="console-user add"):
            require_users(app, listen)
    with served(settings, listen=PROXIED) as console, console.client() as client:
        assert client.get("/settings").status_code == 403
        assert client.get("/api/v1/settings").status_code == 403
    add_user(settings)
    require_users(app, PROXIED)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8088", 200),
        ("127.0.0.1", 200),
        ("[::1]:8088", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8088", 421),
        ("127.evil.example:8088", 421),
        ("", 421),
    ],
)
def test_host_of_another_name_is_refused(settings: Settings, host: str, status: int) -> None:
    """A name of another site that resolves to 127.0.0.1 (DNS rebinding)."""
    with served(settings) as console, console.client(headers={"Host": host}) as client:
        assert client.get("/settings").status_code == status


@pytest.mark.parametrize("host", ["x/static/", "x/login?", "x/static/#", "x/api/v1/"])
def test_host_with_a_path_opens_no_other_path(settings: Settings, host: str) -> None:
    """Starlette builds a request's URL from the header Host: a path in it is not the path."""
    add_user(settings)
    listen = Listen(port=0, trusted_proxies=("192.0.2.1/32",))
    with served(settings, listen=listen) as console, console.client() as client:
        fields = {"csrf": form_token(client.get("/login").text), "reason": "x", "step": "do"}
        client.cookies.update(client.cookies)
        own = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        headers = {"Host": host, "Cookie": own}
        for path in ("/settings", "/overview", "/api/v1/settings", "/live/overview"):
            assert client.get(path, headers=headers).status_code in {303, 400, 401}, path
        for path in paths(console.app, "POST"):
            if path not in {"/login", "/logout"}:
                response = client.post(path, data=fields, headers=headers)
                assert response.status_code in {400, 401, 403}, path


# -- bodies, keys, outages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x=" + b"x" * MOST_BODY, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"x=1" for _ in range(1000)), "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "multipart/form-data", 400),
        (b"{}", "application/json", 403),
        (b'{"csrf": "\\ud800"}', "application/json", 400),
    ],
)
def test_body_that_cannot_be_used_is_refused(
    console: Served, anna: httpx.Client, body: bytes, kind: str, status: int
) -> None:
    assert anna.post("/logout", content=body, headers={"Content-Type": kind}).status_code == status


def test_signing_key_made_twice_at_once_is_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consoles in two containers have one data directory, and the same process id."""
    real = os.link
    others: list[bytes] = []

    def link(source: Path, target: Path) -> None:
        if not others:
            others.append(b"")
            others[0] = signing_key(settings)  # the other console is faster
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert signing_key(settings) == others[0]
    assert [each.name for each in settings.data_path.iterdir()] == ["console.key"]


def test_signing_key_is_private_and_stays(settings: Settings) -> None:
    key = signing_key(settings)
    path = settings.data_path / "console.key"
    assert signing_key(settings) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == ["console.key"]
    path.chmod(0o640)
    with pytest.raises(ClustererError, match="chmod 600"):
        signing_key(settings)
    path.write_text("x")
    path.chmod(0o600)
    with pytest.raises(ClustererError, match="delete the file"):
        signing_key(settings)


def test_access_wrong_values_in_redis_spoil_only_themselves(
    redis_client: redis.Redis, console: Served, anna: httpx.Client
) -> None:
    for field, value in (("user:x y", "view"), ("user:eve", "root 1 scrypt 1 1 1 00 00"), ("", "")):
        redis_client.hset("clusterer:console:users", field, value)
    assert anna.get("/settings").status_code == 200
    with console.client() as client:
        assert log_in(client, "eve", "x").status_code == 401


@pytest.mark.parametrize("wrong", ["field", "key"])
def test_access_with_users_that_cannot_be_read_needs_users(
    redis_client: redis.Redis, settings: Settings, wrong: str
) -> None:
    if wrong == "field":
        redis_client.hset("clusterer:console:users", "user:anna", "x")
    else:
        redis_client.set("clusterer:console:users", "text")
    with served(settings) as console, console.client() as client:
        assert client.get("/settings").status_code == 303
        assert client.get("/api/v1/settings").status_code == 401


@pytest.mark.parametrize("sent", [b"", b"GET /settings HTTP/1.1\r\nHost: "])
def test_connection_without_a_request_is_closed(
    console: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 1.0)
    place = httpx.URL(console.url)
    with socket.create_connection((place.host, place.port), EVENTUALLY_S) as silent:
        silent.sendall(sent)
        assert silent.recv(100) == b""


def test_body_that_does_not_arrive_is_refused(
    console: Served, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BODY_S", 1.0)
    cookie = "; ".join(f"{name}={value}" for name, value in anna.cookies.items())
    head = f"POST /logout HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n"
    place = httpx.URL(console.url)
    with socket.create_connection((place.host, place.port), EVENTUALLY_S) as slow:
        slow.sendall(f"{head}Content-Length: 10\r\n\r\nx".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_access_without_redis_is_refused_and_comes_back(settings: Settings) -> None:
    away = Settings(redis_url="redis://127.0.0.1:1/0", data_dir=settings.data_dir)
    with served(away) as console, console.client() as client:
        assert client.get("/settings").status_code == 503
        assert "Redis" in client.get("/api/v1/settings").json()["error"]
        assert client.get("/static/live.js").status_code == 200


def test_hashes_and_tokens_are_in_no_log(
    settings: Settings, console: Served, anna: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "clusterer")
    with contextlib.closing(Context(settings)) as context:
        token = console_users.add_token(context, "grafana", "view")
    headers = {"Authorization": f"Bearer {token}"}
    assert console.client().get("/api/v1/settings", headers=headers).status_code == 200
    log_in(anna, "anna", PASSWORD)
    log_in(anna, "anna\nx", "wrong password")
    wait_until(lambda: "login of anna x from 127.0.0.1 failed" in caplog.text, 20)
    for secret in (PASSWORD, "wrong password", token, token.rpartition(".")[2], "scrypt "):
        assert secret not in caplog.text
