"""How database users authenticate: MySQL 8's standard, and MariaDB's plugin ed25519.

A scripted server asks for the authentication as the real one does, notes the answer and
refuses it.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pymysql._auth
import pytest
from sqlalchemy import text

from clusterer.errors import DatabaseUnavailable
from clusterer.provisioning.database import Database
from clusterer.settings import Settings
from tests.support.processes import EVENTUALLY_S
from tests.support.programs import require_program

SALT = b"abcdefghijklmnopqrst"
CAPABILITIES = 0x81BFF7FF & ~0x820
"""Of MySQL 8, without TLS and compression."""
SHA2, ED25519 = b"caching_sha2_password", b"client_ed25519"
REFUSED = b"\xff\x15\x04#28000Access denied for user 'opensips'"


def packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def greeting() -> bytes:
    low = struct.pack("<H", CAPABILITIES & 0xFFFF)
    high = struct.pack("<H", CAPABILITIES >> 16)
    head = b"\x0a8.0.36\0" + struct.pack("<I", 7) + SALT[:8] + b"\0" + low + b"\xff\x02\0" + high
    return packet(0, head + b"\x15" + b"\0" * 10 + SALT[8:] + b"\0" + SHA2 + b"\0")


def ask_sha2(client: socket.socket, key: bytes) -> bytes:
    """Ask for the full authentication; return the password as encrypted with ``key``."""
    client.sendall(packet(2, b"\x01\x04"))
    assert client.recv(4096)[4:5] == b"\x02", "the client asks for the public key"
    client.sendall(packet(4, b"\x01" + key))
    return client.recv(4096)[4:]


def ask_ed25519(client: socket.socket) -> bytes:
    """Switch to ed25519; return the signature."""
    client.sendall(packet(2, b"\xfe" + ED25519 + b"\0" + b"n" * 32))
    return client.recv(4096)[4:]


@contextmanager
def server(plugin: bytes, key: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """Serve one login; yield the port and the answers that came."""
    answers: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.settimeout(EVENTUALLY_S)
                client.sendall(greeting())
                client.recv(4096)
                answer = ask_sha2(client, key) if plugin == SHA2 else ask_ed25519(client)
                answers.append(answer)
                client.sendall(packet(6 if plugin == SHA2 else 4, REFUSED))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(EVENTUALLY_S)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], answers
        finally:
            thread.join(EVENTUALLY_S)


def refusal(port: int) -> str:
    database = Database(Settings(db_url=f"mysql://opensips:secret@127.0.0.1:{port}/opensips"))
    with pytest.raises(DatabaseUnavailable) as caught, database.connection("ask") as connection:
        connection.execute(text("SELECT 1"))
    return str(caught.value)


@pytest.fixture(scope="module")
def public_key(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    openssl, path = require_program("openssl"), tmp_path_factory.mktemp("key") / "key.pem"
    for words in (
        ["genrsa", "-out", str(path), "2048"],
        ["rsa", "-in", str(path), "-pubout", "-out", f"{path}.pub"],
    ):
        subprocess.run([openssl, *words], check=True, capture_output=True, timeout=60)
    return Path(f"{path}.pub").read_bytes()


def test_mysql_login_of_version_8_encrypts_password(public_key: bytes) -> None:
    with server(SHA2, public_key) as (port, answers):
        assert "Access denied" in refusal(port)
    assert [len(answer) for answer in answers] == [256]


def test_mysql_login_of_mariadb_signs_with_ed25519() -> None:
    with server(ED25519) as (port, answers):
        assert "Access denied" in refusal(port)
    assert [len(answer) for answer in answers] == [64]


def test_mysql_login_without_cryptography_names_it(
    monkeypatch: pytest.MonkeyPatch, public_key: bytes
) -> None:
    monkeypatch.setattr(pymysql._auth, "_have_cryptography", False)
    with server(SHA2, public_key) as (port, _):
        assert refusal(port).endswith("(pip install 'PyMySQL[rsa]')")


def test_mysql_login_without_ed25519_names_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl", None)
    monkeypatch.setattr(pymysql._auth, "_nacl_bindings", False)
    with server(ED25519) as (port, _):
        assert refusal(port).endswith("(pip install 'clusterer[ed25519]')")
