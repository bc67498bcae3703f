"""The key with which the console signs its cookies: a file in the data directory."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from clusterer.errors import ClustererError
from clusterer.settings import Settings

NAME = "console.key"
_BYTES = 32


def signing_key(settings: Settings) -> bytes:
    """Return the key; make the file, readable by its owner alone, if there is none.

    A new key ends all sessions. Raises `ClustererError` if the file cannot be used, or if other
    users can read it.
    """
    path = settings.data_path / NAME
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise ClustererError(
                f"console: other users can read or change {path}: run `chmod 600 {path}`, or "
                "delete the file, which ends all sessions"
            )
        key = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise ClustererError(f"console: cannot use {path}: {error.strerror}") from error
    except ValueError:
        key = b""
    if len(key) < _BYTES:
        raise ClustererError(f"console: {path} holds no key: delete the file")
    return key


def _make(path: Path) -> None:
    """Write a new key; another process may do the same at this moment, and the first wins."""
    # Process ids do not name the file: consoles in two containers have the same.
    descriptor, name = tempfile.mkstemp(prefix=f"{NAME}.", dir=path.parent)
    own = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES))
        try:
            os.link(own, path)
        except FileExistsError:
            return
    finally:
        own.unlink()
