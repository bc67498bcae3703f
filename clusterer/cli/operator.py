"""Who gives a command, for the audit stream."""

from __future__ import annotations

import getpass
import os
import socket


def operator() -> str:
    """Return ``operator user@host``, and behind sudo whose hands they are."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    hands = os.environ.get("SUDO_USER", "")
    by = f" (sudo by {hands})" if hands not in ("", user) else ""
    return f"operator {user}@{socket.gethostname()}{by}".encode("utf-8", "replace").decode()
