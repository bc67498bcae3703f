"""Log lines: their two forms, the node they are about, and no floods."""

from __future__ import annotations

import ast
import codecs
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import clusterer
import scheduler
import workers
from clusterer.runtime.logs import about, configure
from clusterer.runtime.logs.formats import HumanFormatter, JsonFormatter, foreign_line
from clusterer.runtime.logs.handler import BURST, WINDOW_S, SummarisingHandler
from clusterer.runtime.logs.limited import MOST_KINDS, Limiter
from clusterer.settings import Settings
from tests.support.cluster import node
from tests.support.processes import wait_until

NODE = node(2, 5566)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def logger(handler: logging.Handler) -> logging.Logger:
    made = logging.getLogger("tests.unit.test_logs")
    made.setLevel(logging.DEBUG)
    made.propagate = False
    made.handlers[:] = [handler]
    return made


def test_logs_json_line_has_node_and_own_fields(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("worker delivery"))
    logger(handler).warning("%s failed", "it", extra=about(NODE, sender=1))
    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["process"]) == (
        "it failed",
        "warning",
        "worker delivery",
    )
    assert (line["cluster"], line["protocol"], line["machine_id"]) == (1, "bin", 2)
    assert (line["url"], line["sender"]) == (NODE.url, 1)
    assert line["time"].endswith("Z")
    assert set(line) == {
        *("time", "level", "logger", "process", "pid", "message"),
        *("cluster", "protocol", "machine_id", "url", "sender"),
    }


def test_logs_traceback_is_one_json_line(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("node"))
    try:
        json.loads("two\nlines")
    except ValueError:
        logger(handler).exception("oh")
    assert stream.getvalue().count("\n") == 1
    assert "JSONDecodeError: " in json.loads(stream.getvalue())["exception"]


def test_logs_text_line_names_node_once(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter())
    log = logger(handler)
    log.warning("it failed", extra=about(NODE))
    log.warning("%s failed", NODE.url, extra=about(NODE))
    first, second = stream.getvalue().splitlines()
    assert first.endswith(f"it failed [cluster 1:bin node 2 {NODE.url}]")
    assert second.endswith(f": {NODE.url} failed")


def test_logs_text_line_escapes_control_characters(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter())
    try:
        codecs.lookup("\x1b[2J")
    except LookupError:
        logger(handler).exception("of %s\nno second line", "\x1b]0;title\x07\u202e")
    first, *traceback = stream.getvalue().splitlines()
    assert first.endswith(": of  ]0;title   no second line")
    assert traceback[-1] == "LookupError: unknown encoding:  [2J"


def test_logs_output_of_child_becomes_json() -> None:
    assert foreign_line('{"a": 1}', process="node", at=0.0) == '{"a": 1}'
    line = json.loads(foreign_line('{"a": ', process="node", at=0.0))
    assert line == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "process": "node",
        "message": '{"a": ',
    }


def test_logs_every_line_of_node_has_its_fields() -> None:
    """Log calls whose text has "node %"."""
    calls = [
        (path.name, node)
        for package in (clusterer, workers, scheduler)
        for path in Path(str(package.__file__)).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"debug", "info", "warning", "error", "exception", "log"}
    ]
    named = [(where, call) for where, call in calls if re.search("node %", ast.unparse(call))]
    assert len(named) >= 5, "the search finds the calls"
    for where, call in named:
        assert "extra" in {keyword.arg for keyword in call.keywords}, (where, call.lineno)


# -- floods ----------------------------------------------------------------------------------------


def test_limiter_after_burst_counts_lines_left_out() -> None:
    limiter: Limiter[str] = Limiter(burst=3, window_s=10)
    assert [limiter.admit("a", 0.0, f"line {at}") for at in range(5)] == [0, 0, 0, None, None]
    assert limiter.admit("b", 1.0) == 0, "another kind has a limit of its own"
    assert limiter.ended(9.9) == []
    assert limiter.next_end() == 10.0
    assert limiter.ended(10.0) == [("line 4", 2)]
    assert limiter.next_end() is None
    assert limiter.admit("a", 10.0) == 0


def test_limiter_in_next_window_returns_number_left_out() -> None:
    limiter: Limiter[str] = Limiter(burst=1, window_s=10)
    assert [limiter.admit("a", at, "x") for at in (0.0, 1.0, 9.9, 10.0, 20.0)] == [
        *(0, None, None),
        *(2, 0),
    ]


def test_limiter_with_slow_lines_admits_all() -> None:
    limiter: Limiter[str] = Limiter(BURST, WINDOW_S)
    assert all(limiter.admit("a", at * WINDOW_S / BURST) == 0 for at in range(200))


def test_limiter_with_many_kinds_has_one_limit_for_the_rest() -> None:
    limiter: Limiter[int] = Limiter(burst=1, window_s=10)
    admitted = sum(limiter.admit(kind, 0.0, kind) is not None for kind in range(5000))
    assert admitted == MOST_KINDS + 1
    assert limiter.ended(10.0) == [(4999, 5000 - admitted)]
    assert limiter.admit(5000, 10.0) == 0, "kinds whose window has ended make room"


def test_handler_with_late_timer_counts_in_next_line(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SummarisingHandler, "_start_timer", lambda _handler: None)
    handler = SummarisingHandler(stream, burst=1, window_s=10)
    log = logger(handler)
    for now in (0.0, 1.0, 2.0, 10.0):
        monkeypatch.setattr("clusterer.runtime.logs.handler.monotonic", lambda now=now: now)
        log.warning("no")
    assert stream.getvalue().splitlines() == ["no", "no (the last of 3 more like it)"]


def test_logs_flood_ends_with_its_number(stream: io.StringIO) -> None:
    handler = SummarisingHandler(stream, burst=2, window_s=0.2)
    handler.setFormatter(JsonFormatter("node"))
    log = logger(handler)
    for number in range(100):
        log.warning("node %d failed", number, extra=about(NODE))
    assert stream.getvalue().count("\n") == 2
    wait_until(lambda: stream.getvalue().count("\n") == 3)
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert last["message"] == "node 99 failed (the last of 98 more like it)"
    assert (last["repeated"], last["machine_id"]) == (98, 2)
    handler.close()
    assert stream.getvalue().count("\n") == 3


def test_logs_left_out_number_is_logged_at_end(stream: io.StringIO) -> None:
    handler = SummarisingHandler(stream, burst=1, window_s=60)
    log = logger(handler)
    for _ in range(3):
        log.error("no")
    handler.close()
    assert stream.getvalue().splitlines() == ["no", "no (the last of 2 more like it)"]


def test_logs_debug_lines_are_not_limited(stream: io.StringIO) -> None:
    log = logger(SummarisingHandler(stream, burst=1))
    for _ in range(50):
        log.debug("x")
    assert stream.getvalue().count("\n") == 50


# -- setting up ------------------------------------------------------------------------------------


@pytest.fixture
def _root() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize(
    ("setting", "default", "level"),
    [
        ("auto", logging.INFO, logging.INFO),
        ("auto", logging.WARNING, logging.WARNING),
        ("error", logging.INFO, logging.ERROR),
        ("debug", logging.WARNING, logging.DEBUG),
    ],
)
def test_logs_level_setting_wins_over_command(setting: str, default: int, level: int) -> None:
    configure(Settings(log_level=setting), "node", level=default)
    assert logging.getLogger().level == level
