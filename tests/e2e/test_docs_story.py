"""A morning with two machines, as the docs show it: each output beside the one on its page."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict

import pytest

from tests.support import docs, redis_cli
from tests.support.mariadb_server import MariaDBServer
from tests.support.redis_server import RedisServer
from tests.support.story import NODE, UP, Story
from tests.support.transcripts import plain, shown

pytestmark = pytest.mark.timeout(600)  # of the first test the whole story is a part


@pytest.fixture(scope="module")
def story(mariadb_server: MariaDBServer, tmp_path_factory: pytest.TempPathFactory) -> Story:
    with RedisServer() as server:
        story = Story(server, mariadb_server, tmp_path_factory.mktemp("story"))
        story.tell()
        return story


LINES = [
    NODE,
    "events --node 2",
    "events --last 1 --json",
    "doctor --server-id 1",
    "tail --server-id 2 --count 3",
    "replay calls.rec --to 127.0.0.2:5566",
    "replay calls.rec --cluster 1 --server-id 2",
    "top --once",
    "watch 2",
    "watch 2 | tee watched",
]


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_docs_command_prints_what_its_page_shows(story: Story, line: str) -> None:
    on_page = shown(docs.command_section(line.split(maxsplit=1)[0]), f"clusterer {line}")
    assert plain(told(story, line), story.names) == plain(on_page)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["init-db --example", "reload", NODE, "list --server-id 1"])
def test_getting_started_shows_what_is_printed(story: Story, line: str) -> None:
    on_page = shown(docs.read("getting-started.md"), f"clusterer {line}")
    assert plain(told(story, line), story.names) == plain(on_page)


def told(story: Story, line: str) -> str:
    """Return what the run printed; its ports are not the docs'."""
    found = {plain(words, story.names): text for words, text in story.printed.items()}
    return found[plain(line)]


# -- what several processes say, in no order of theirs ---------------------------------------------


def by_process(text: str) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in text.splitlines():
        name, _, said = line.partition("|")
        found[name.strip()].append(said.strip())
    return found


@pytest.mark.slow
def test_up_says_what_its_page_shows(story: Story) -> None:
    """Each process, line by line, as far as the page goes."""
    on_page = by_process(plain(shown(docs.command_section("up"), f"clusterer {UP}")))
    told = by_process(plain(story.printed[UP], story.names))
    assert set(on_page) == set(told)
    for name, lines in on_page.items():
        assert told[name][: len(lines)] == lines


@pytest.mark.slow
def test_docs_log_line_is_as_shown(story: Story) -> None:
    (line, *_) = docs.blocks(docs.section("monitoring.md", "Logs"), "text")
    said = by_process(plain(story.printed["what up said"], story.names))
    assert plain(line) in said["delivery"]


@pytest.mark.slow
def test_rq_knows_our_workers_as_the_page_shows(story: Story) -> None:
    """RQ lists queues and workers in any order; figures, and who is busy, are those of a moment."""

    def lines(text: str) -> list[str]:
        text = re.sub(r"\|.*? \d+,", "|", text)
        text = re.sub(r"\b(busy|idle)\b", "<state>", text)
        text = re.sub(r"\d+ (executing|finished|failed|jobs)|127.0.0.1:\d+ \d+|<time>.*", "", text)
        return sorted(text.splitlines())

    line = "rq info --url redis://127.0.0.1:6379/0"
    on_page = shown(docs.command_section("worker"), line)
    assert lines(plain(told(story, line), story.names)) == lines(plain(on_page))


# -- Redis -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("key", ["clusterer:lease:1", "clusterer:capture:1"])
def test_docs_short_lived_key_is_as_shown(story: Story, key: str) -> None:
    """A tail's entry may have many packets, and what is in them is not compared."""
    received, on_page = redis_cli.received(story.replies[key])[:3], redis_cli.on_page(key)

    def made_of(texts: list[str]) -> list[str]:
        plain_texts = [re.sub(r"^\S+?(?=:)|P4CK.*", "", text) for text in texts]
        return [redis_cli.shape(re.sub(r":[0-9a-f]{8}$", "", text)) for text in plain_texts]

    assert made_of(received) == made_of(on_page)


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_docs_end_of_list_json_is_as_shown(story: Story) -> None:
    *_, line = docs.blocks(docs.command_section("list"), "console")
    command, _, on_page = line.partition("\n")
    pretty = json.dumps(json.loads(story.printed["list --json --traffic"]), indent=4).splitlines()
    count = int(shlex.split(command)[-1])
    assert numberless("\n".join(pretty[-count:])) == numberless(on_page)


def numberless(text: str) -> str:
    return re.sub(r": (\"?[\d.]+\"?|null)", ": <n>", text.strip())
