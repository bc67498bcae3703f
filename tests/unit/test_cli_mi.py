"""The default path of the request FIFO of ``clusterer mi``."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterer.cli import mi


def test_default_fifo_is_in_first_directory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tmp = tmp_path / "run", tmp_path / "tmp"
    monkeypatch.setattr(mi, "_DIRECTORIES", (run, tmp))
    assert mi.default_fifo() == tmp / "opensips_fifo"
    tmp.mkdir()
    assert mi.default_fifo() == tmp / "opensips_fifo"
    run.mkdir()
    assert mi.default_fifo() == run / "opensips_fifo"


def test_default_fifo_directories_are_those_of_docs() -> None:
    assert list(map(str, mi._DIRECTORIES)) == ["/run/clusterer", "/tmp"]
