"""The limit of open files, in processes of their own: it cannot be raised again."""

from __future__ import annotations

import pytest

from tests.support.processes import spawn

_PROGRAM = """
import logging, resource, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
soft, hard, count = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from clusterer.runtime.descriptors import allow_connections
print(allow_connections(count), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "room"), [(256, 1024, 900, 900), (1024, 1024, 100, 100)]
)
def test_file_limit_is_raised_to_what_system_allows(
    soft: int, hard: int, wanted: int, room: int
) -> None:
    with spawn(["-c", _PROGRAM, str(soft), str(hard), str(wanted)]) as process:
        assert process.wait() == 0, process.output()
        assert process.output().split() == [str(room), str(hard)]


def test_file_limit_too_low_is_reported_at_start() -> None:
    with spawn(["-c", _PROGRAM, "256", "512", "10000"]) as process:
        assert process.wait() == 0, process.output()
        assert "max_connections is 10000, but this process may open 512 files" in process.output()
        assert process.output().endswith("448 512\n")
