"""Programs that tests need: found, or the test is skipped, or in CI failed."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find_program(*names: str) -> str | None:
    """Return the path of the first of ``names`` that is installed, else None."""
    return next((path for name in names if (path := shutil.which(name, path=_PATH))), None)


def require_program(*names: str) -> str:
    """Return the path of the first of ``names`` that is installed; without any, `missing`."""
    return find_program(*names) or missing(names[0])


def missing(what: str) -> NoReturn:
    """Skip the running test because ``what`` is not there; in CI, fail it."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{what} is not installed", pytrace=False)
    pytest.skip(f"{what} is not installed")
