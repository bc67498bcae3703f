"""docs/nginx/console.conf in a real nginx, with TLS, before a real console."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from clusterer.console.server import Listen
from clusterer.settings import Settings
from tests.support import docs
from tests.support.certificates import self_signed
from tests.support.consoles import TIMEOUT_S, add_user, log_in, served, watching
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, end_group, start, wait_until
from tests.support.programs import require_program

HOST = "127.0.0.1"


@pytest.fixture
def proxied(settings: Settings, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a console behind nginx, over TLS."""
    add_user(settings, "anna", "operate")
    certificate, key = self_signed(tmp_path / "tls", HOST)
    with served(settings, listen=Listen(port=0, trusted_proxies=(HOST,))) as console:
        text = docs.read("nginx/console.conf")
        plain_port, port = free_port(), free_port()
        for old, new in {
            "http://127.0.0.1:8088": console.url,
            "/etc/ssl/certs/console.pem": str(certificate),
            "/etc/ssl/private/console.key": str(key),
            "listen 80": f"listen {HOST}:{plain_port}",
            "listen 443": f"listen {HOST}:{port}",
            "console.example.net": HOST,
        }.items():
            assert old in text
            text = text.replace(old, new)
        text = re.sub(r"(?m)^ *listen \[::\].*\n", "", text)
        with nginx(tmp_path, text, port):
            trust = ssl.create_default_context(cafile=str(certificate))
            with httpx.Client(
                base_url=f"https://{HOST}:{port}", verify=trust, timeout=TIMEOUT_S
            ) as client:
                yield client


@contextmanager
def nginx(directory: Path, servers: str, port: int) -> Iterator[None]:
    """Run nginx with these servers until the end of the block."""
    program = require_program("nginx")
    config = directory / "nginx.conf"
    temporary = "".join(
        f"{name}_temp_path {directory}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; pid {directory}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}{servers}}}\n"
    )
    log = directory / "nginx.log"
    process = start([program, "-p", directory, "-c", config], log)
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, EVENTUALLY_S)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        end_group(process)


def listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def test_console_behind_nginx_logs_in_and_follows(proxied: httpx.Client) -> None:
    answer = proxied.get("/events")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fevents"
    assert "max-age" in answer.headers["strict-transport-security"]
    log_in(proxied, "anna")
    cookies = [each for each in proxied.cookies.jar if each.secure]
    assert cookies, "cookies are for TLS only"
    assert "anna" in proxied.get("/events").text
    with watching(proxied, "/events") as events:
        assert events.next()
        assert events.next("ping"), "nginx passes events on at once"


def test_console_behind_nginx_redirects_plain_http(proxied: httpx.Client, tmp_path: Path) -> None:
    (port,) = re.findall(rf"listen {HOST}:(\d+);", (tmp_path / "nginx.conf").read_text())
    answer = httpx.get(f"http://{HOST}:{port}/events", timeout=TIMEOUT_S)
    assert answer.status_code == 301
    assert answer.headers["location"].startswith("https://")
