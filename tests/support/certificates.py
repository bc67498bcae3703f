"""Certificates that tests make for their own servers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.programs import require_program

_CONFIG = """[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = server
[extensions]
basicConstraints = critical, CA:true
keyUsage = critical, digitalSignature, keyCertSign
subjectAltName = IP:{address}
"""


def self_signed(directory: Path, address: str) -> tuple[Path, Path]:
    """Make ``directory`` with a certificate for an IP ``address``; return its file and its key's.

    All users may read them: MariaDB runs as another one.
    """
    directory.mkdir()
    config, key, certificate = (directory / name for name in ("config", "key.pem", "cert.pem"))
    config.write_text(_CONFIG.format(address=address))
    words = [require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
    words += ["-days", "2", "-config", str(config), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    for path in (directory, key, certificate):
        path.chmod(0o755)
    return certificate, key
