"""Who gives a command, for the audit stream."""

from __future__ import annotations

import getpass
import os
import socket


def operator() -> str:
    """Return ``operator user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"operator {user}@{socket.gethostname()}"
