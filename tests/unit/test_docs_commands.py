"""The docs against the code: settings and commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import Field, fields
from pathlib import Path

import click
import pytest
from rq.utils import import_attribute

from clusterer.cli import INTERRUPTED
from clusterer.cli.options import with_settings
from clusterer.cli.root import COMMANDS, cli
from clusterer.cli.run import FAILED, OUTPUT_UNWANTED
from clusterer.jobs import Job, Queue
from clusterer.membership import Node
from clusterer.provisioning.url import database_url
from clusterer.services.status.totals import FromSender, ToNode
from clusterer.services.status.traffic import Traffic
from clusterer.settings import SECRETS, Settings
from clusterer.settings.sources import load_settings
from tests.support import docs
from tests.support.docs import PAGES
from workers import Worker

GUIDE = """
    db_url db_table server_id persistent_mode cluster_id_col machine_id_col clusterer_id_col
    state_col url_col description_col failed_attempts_col last_attempt_col duration_col no_tries_col
"""
"""The parameters of the module's guide, in its order."""

THE_REST = """
    clusterer_reload clusterer_list clusterer_set_status
    get_nodes free_nodes set_state check get_my_id send_to register_module
    id cluster_id machine_id url state last_attempt failed_attempts no_tries duration description
    replicate_pipes_to accept_pipes_from accept_pipes_timeout
"""
"""What else it has: MI functions, functions for modules, columns, its example's parameters."""


# -- parameters.md ---------------------------------------------------------------------------------


def parameter_rows() -> dict[str, tuple[str, str]]:
    """Return the default and the values that the page gives for each setting, as written."""
    rows = docs.table_rows(docs.read("parameters.md"), columns=4)
    return {name.strip("`"): (default, values) for name, default, values, _ in rows if "`" in name}


def written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.15g}" if isinstance(value, int | float) else str(value)


def values_of(item: Field[object]) -> str:
    if bounds := item.metadata.get("range"):
        return " to ".join(map(written, bounds))
    if isinstance(item.default, bool):
        return "yes, no"
    return ", ".join(item.metadata.get("choices", ())) or "text"


@pytest.mark.parametrize("item", fields(Settings), ids=lambda item: item.name)
def test_docs_every_setting_has_default_and_values(item: Field[object]) -> None:
    default = written(item.default)
    assert parameter_rows()[item.name] == (f"`{default}`" if default else "empty", values_of(item))


def test_docs_documented_settings_exist() -> None:
    assert list(parameter_rows()) == [item.name for item in fields(Settings)]


def test_docs_guide_parameters_come_first_and_complete() -> None:
    section = docs.section("parameters.md", "The guide's parameters")
    assert [row[0].strip("`") for row in docs.table_rows(section, columns=4)[1:]] == GUIDE.split()


def test_docs_rest_of_guide_is_complete() -> None:
    """Its MI functions, its functions for modules, and the columns of its table."""
    named = docs.section("parameters.md", "Other items of the guide")
    assert [name for name in THE_REST.split() if f"`{name}`" not in named] == []
    rows = docs.table_rows(docs.section("api.md", "The seven functions"), columns=2)[1:]
    functions = [row[0].strip("`").partition("(")[0] for row in rows]
    assert [name for name in functions if name not in THE_REST.split()] == []
    assert len(functions) == 7


def test_docs_examples_of_settings_can_be_loaded(tmp_path: Path) -> None:
    page = docs.read("parameters.md")
    (toml,) = docs.blocks(page, "toml")
    config = tmp_path / "clusterer.toml"
    config.write_text(toml, encoding="utf-8")
    (shell,) = docs.blocks(page, "sh")
    words = [shlex.split(line)[1] for line in shell.splitlines()]
    variables = dict(word.partition("=")[::2] for word in words)
    assert load_settings(config=config, environ={}) == load_settings(environ=variables)
    assert load_settings(environ=variables).persistent_mode


def test_docs_opensips_configuration_equals_settings(tmp_path: Path) -> None:
    (toml,) = docs.blocks(docs.read("opensips/replacing.md"), "toml")
    config = tmp_path / "clusterer.toml"
    config.write_text(toml, encoding="utf-8")
    ours = load_settings(config=config, environ={})
    theirs = re.findall(
        r'modparam\("(?:clusterer|ratelimit)", "(\w+)", "?([^")]+)"?\)',
        docs.read("opensips/joining.md"),
    )
    assert len(theirs) >= 6
    for name, value in theirs:
        setting = getattr(ours, name)
        assert value == str(int(setting) if value.isdigit() else setting), name


def test_docs_every_form_of_db_url_is_valid() -> None:
    rows = docs.table_rows(docs.section("parameters.md", "db_url"), columns=2)[1:]
    assert len(rows) >= 8
    for text, _ in rows:
        url = database_url(Settings(db_url=text.strip("`")))
        assert url.get_driver_name() in ("pymysql", "pysqlite"), text
    hard = database_url(Settings(db_url=rows[1][0].strip("`")))
    assert (hard.password, hard.port) == ("p@ss%20w/rd", 3307)


def test_docs_variables_in_all_pages_are_settings() -> None:
    known = {f"CLUSTERER_{item.name.upper()}" for item in fields(Settings)}
    known |= {f"CLUSTERER_{name.upper()}_FILE" for name in SECRETS}
    known |= {"CLUSTERER_CONFIG", "CLUSTERER_NAME", "CLUSTERER_COMPLETE"}
    for page in PAGES:
        found = set(re.findall(r"CLUSTERER_[A-Z0-9_]+", page.read_text(encoding="utf-8")))
        assert found <= known, docs.name_of(page)


# -- commands --------------------------------------------------------------------------------------


def command_named(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def shared_options() -> set[str]:
    command = click.command()(with_settings()(lambda settings: None))
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_docs_every_command_has_its_section(name: str) -> None:
    section = docs.command_section(name)
    command = command_named(name)
    first = (command.help or "").splitlines()[0]
    assert section.startswith(first), f"the section begins with the help's first line: {first}"
    usage = next(line.strip() for line in section.splitlines() if line.startswith("    clusterer"))
    assert usage.split()[:2] == ["clusterer", name]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert parameter.make_metavar(click.Context(command)) in usage
        elif not shared_options().intersection(parameter.opts):
            assert parameter.opts[0] in usage
    if name != "demo":
        assert f"$ clusterer {name}" in section, "real output is shown"


def test_docs_commands_of_sections_exist() -> None:
    found = re.findall(r"(?m)^## (.+)$", docs.folder("commands"))
    assert sorted(found) == sorted(COMMANDS)


def test_docs_table_leads_to_every_command_once() -> None:
    top = docs.read("commands.md").partition("| exit code")[0]
    found = re.findall(r"\[([a-z-]+)\]\(commands/[a-z]+\.md#\1\)", top)
    assert sorted(found) == sorted(COMMANDS)


def test_docs_options_of_all_commands_are_described() -> None:
    section = docs.section("commands.md", "Options of all commands")
    for option in shared_options() | {"-h", "--help", "--version"}:
        assert f"`{option}" in section or f"clusterer {option}" in section, option


def test_docs_exit_codes_are_described() -> None:
    rows = docs.table_rows(docs.read("commands.md"), columns=2)
    codes = [row[0] for row in rows if row[0].isdigit()]
    wrong_usage = click.UsageError("").exit_code
    assert codes == ["0", *map(str, (FAILED, wrong_usage, INTERRUPTED, OUTPUT_UNWANTED))]


def test_docs_every_name_in_list_json_is_described() -> None:
    section = docs.command_section("list")
    names = {"now", "server_id", "clusters", "traffic", "nodes", "condition", "enabled_in_s", "own"}
    kinds = (Node, Traffic, ToNode, FromSender)
    names |= {"seen_by", "verdict", "reached_by", "live_senders"}
    names |= {item.name for kind in kinds for item in fields(kind)} | {"senders"}
    assert {name for name in names if f"`{name}`" not in section} == set()


def test_docs_every_command_line_can_be_parsed() -> None:
    """No page may show an option or command that does not exist."""
    seen = set()
    for page in PAGES:
        for words in docs.clusterer_lines(page.read_text(encoding="utf-8")):
            if words[0].startswith("-"):
                assert words[0] in ("--version", "--help", "--config"), (docs.name_of(page), words)
                continue
            command = command_named(words[0])
            seen.add(words[0])
            known = {o for p in command.params for o in p.opts} | {"--help"}
            used = {w.partition("=")[0] for w in words[1:] if w.startswith("-")}
            assert used <= known, (docs.name_of(page), words)
    assert seen == set(COMMANDS)


def test_docs_plain_rq_worker_line_names_existing() -> None:
    (line,) = docs.blocks(docs.command_section("worker"), "sh")
    words = shlex.split(line.replace("\\\n", " "))
    classes = {"-w": Worker, "--job-class": Job, "--queue-class": Queue}
    for option, real in classes.items():
        assert import_attribute(words[words.index(option) + 1]) is real
    assert words[:2] == ["rq", "worker"]
    assert words[-1] == Settings().delivery_queue
