"""Output of commands in a real terminal: colours only where wanted, readable at any width."""

from __future__ import annotations

import pytest
import redis

from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.settings import Settings
from tests.support.seeding import make_node, put_node
from tests.support.terminal import in_terminal

COMMANDS = (["list"], ["events"], ["doctor"])


@pytest.fixture(autouse=True)
def _nodes(redis_url: str, redis_client: redis.Redis) -> None:
    put_node(redis_client, make_node(1))
    put_node(redis_client, make_node(2, description="a long text that would take it all " * 2))
    set_status.run(Context(Settings(redis_url=redis_url)), 1, 2, 0, "bin", by="test")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_list_in_terminal_has_colours(arguments: list[str], redis_url: str) -> None:
    assert "\x1b[" in in_terminal(arguments, {"CLUSTERER_REDIS_URL": redis_url})[1]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("wish", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_list_with_no_color_has_no_colours(
    arguments: list[str], wish: dict[str, str], redis_url: str
) -> None:
    _, shown = in_terminal(arguments, {"CLUSTERER_REDIS_URL": redis_url} | wish)
    assert "\x1b[3" not in shown


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_list_url_beside_long_description_stays_whole(columns: int, redis_url: str) -> None:
    _, shown = in_terminal(["list"], {"CLUSTERER_REDIS_URL": redis_url}, columns=columns)
    assert make_node(1).url in shown
    assert make_node(2).url in shown
