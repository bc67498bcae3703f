"""The files of docs/deployment.md: units, containers with checks and limits, completion."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterer.cli.root import COMMANDS
from clusterer.settings import ENV_PREFIX, WORKER_KINDS, Settings
from clusterer.settings.sources import load_settings
from tests.support import docs
from tests.support.processes import EVENTUALLY_S, child_environment
from tests.support.programs import find_program

UNITS = sorted((docs.DOCS / "systemd").glob("*.service"))


def unit(path: Path) -> dict[str, list[str]]:
    """Return the values of each name in a unit's service section."""
    section = path.read_text(encoding="utf-8").partition("[Service]\n")[2].partition("\n[")[0]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_deployment_unit_has_existing_command_and_settings(path: Path) -> None:
    found = unit(path)
    (start,) = found["ExecStart"]
    program, command, *rest = start.split()
    assert program.endswith("/bin/clusterer")
    assert command in COMMANDS
    assert rest in ([], ["%i"], ["$CONSOLE_OPTIONS"])
    names = {value.partition("=")[0] for value in found["Environment"]}
    known = {ENV_PREFIX + name.upper() for name in Settings.__dataclass_fields__}
    assert names <= known | {"CLUSTERER_CONFIG", "PYTHONUNBUFFERED"}
    assert found["KillSignal"] == ["SIGTERM"]
    assert int(found["TimeoutStopSec"][0]) > 5, "longer than a clean stop takes"
    assert found["Restart"] == ["always"]
    assert "MemoryMax" in found
    text = path.read_text(encoding="utf-8")
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    assert parser.sections() == ["Unit", "Service", "Install"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_deployment_units_wait_at_stop_and_always_restart(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").partition("[Service]\n")[0].splitlines()
    # Stopping goes the other way: `systemctl stop clusterer.target` ends with the last service.
    assert {"PartOf=clusterer.target", "After=clusterer.target"} <= set(lines)
    # By default five restarts in ten seconds, such as the OOM killer brings about, are the last.
    assert "StartLimitIntervalSec=0" in lines


def test_deployment_settings_file_of_page_can_be_read(tmp_path: Path) -> None:
    (block, *_) = docs.blocks(docs.section("deployment.md", "systemd"), "sh")
    written = re.search(
        r"(?s)/etc/clusterer/clusterer\.toml <<'END'\n(.*?)^END$", block, re.MULTILINE
    )
    assert written
    path = tmp_path / "clusterer.toml"
    path.write_text(written[1])
    settings = load_settings(config=path, environ={})
    assert settings.server_id
    assert settings.redis_url
    assert settings.db_url
    assert settings.delivery_queue != Settings().delivery_queue, "one per host"


def test_deployment_page_enables_every_unit() -> None:
    page = docs.read("deployment.md")
    enabled = set(re.findall(r"clusterer-[a-z]+(?:@[a-z]+)?", page))
    for path in UNITS:
        kinds = WORKER_KINDS if "@" in path.stem else ("",)
        assert {path.stem + kind for kind in kinds} <= enabled


def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    program = find_program("systemd-analyze") or pytest.skip("systemd is not installed")
    for path in (*UNITS, docs.DOCS / "systemd" / "clusterer.target"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(re.sub(r"/opt/\S+", "/bin/true", text))
    result = subprocess.run(
        [program, "verify", "--man=no", *(tmp_path / path.name for path in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert str(tmp_path) not in result.stderr, result.stderr


# -- containers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> dict[str, str]:
    """The compose file's services as docker-compose prints them."""
    program = find_program("docker-compose") or pytest.skip("docker-compose is not installed")
    result = subprocess.run(
        [program, "--file", docs.ROOT / "docker-compose.yml", "config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return _services(result.stdout)


def test_compose_lasting_containers_have_health_check_and_limits(services: dict[str, str]) -> None:
    assert {"node1", "node2", "delivery1", "maintenance", "scheduler", "redis"} <= set(services)
    for name, text in services.items():
        if re.search(r"(?m)^    restart: ['\"]?no", text):
            continue
        assert "healthcheck:" in text, name
        # Not under `deploy:`, which docker-compose skips unless told otherwise.
        assert re.search(r"(?m)^    cpus: \S+$", text), name
        assert re.search(r"(?m)^    mem_limit: \S+$", text), name


def test_compose_health_check_of_several_words_has_no_quotes(services: dict[str, str]) -> None:
    # Podman joins the words of the form CMD and splits them again at every blank.
    checked = 0
    for name, text in services.items():
        found = re.search(r"(?m)^      test:\n((?:      - .*\n(?:        .*\n)*)+)", text)
        if found is None:
            continue
        form, *words = re.findall(r"(?m)^      - (.*(?:\n        .*)*)$", found[1])
        assert form in {"CMD", "CMD-SHELL", "NONE"}, name
        if form == "CMD":
            assert not [word for word in words if re.search(r"\s", word)], name
        checked += 1
    assert checked == len(services) - 1, "all but example-nodes, which ends at once"


def test_images_are_named_in_full() -> None:
    # Short names mean Docker Hub to Docker only; Podman asks where to look, or refuses.
    compose = (docs.ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    images = set(re.findall(r"(?m)^ +image: (\S+)$", compose)) - {"clusterer:latest"}
    images |= set(re.findall(r"(?m)^FROM (\S+)", (docs.ROOT / "Dockerfile").read_text("utf-8")))
    assert len(images) == 3
    assert {image.partition("/")[0] for image in images} == {"docker.io"}


def test_compose_containers_have_minimal_rights(services: dict[str, str]) -> None:
    ours = {name: text for name, text in services.items() if "image: clusterer" in text}
    assert len(ours) >= 11
    for name, text in ours.items():
        assert "read_only: true" in text, name
        assert re.search(r"cap_drop:\s+- ALL\n", text), name
        assert "- no-new-privileges:true" in text, name


@pytest.mark.parametrize("number", ["1", "2"])
def test_compose_instance_and_worker_share_address(services: dict[str, str], number: str) -> None:
    for name in ("node", "delivery"):
        assert f"network_mode: service:host{number}" in services[name + number]
        assert (
            f"CLUSTERER_DELIVERY_QUEUE: clusterer-delivery-node{number}" in services[name + number]
        )
    (address,) = re.findall(r"ipv4_address: (\S+)", services["host" + number])
    assert address in services["node" + number], "what its health check connects to"
    assert f"bin:{address}:" in services["example-nodes"]


def test_compose_containers_run_existing_commands(services: dict[str, str]) -> None:
    ours = {
        name: re.findall(r"(?m)^    - (\S+)$", text.partition("    command:\n")[2])
        for name, text in services.items()
        if "image: clusterer" in text and ("entrypoint:" not in text or name == "init")
    }
    assert len(ours) >= 9
    for name, words in ours.items():
        assert words[0] in COMMANDS, name
    kinds = {words[1] for words in ours.values() if words[0] == "worker"}
    assert kinds == set(WORKER_KINDS)


def _services(text: str) -> dict[str, str]:
    block = text.partition("\nservices:\n")[2] or text.partition("services:\n")[2]
    block = re.split(r"(?m)^\S", block)[0]
    parts: list[Any] = re.split(r"(?m)^  (\S+):\n", block)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# -- completion ------------------------------------------------------------------------------------


def complete(**variables: str) -> str:
    program = Path(sys.executable).with_name("clusterer")
    result = subprocess.run(
        [program],
        env=child_environment(variables),
        capture_output=True,
        text=True,
        timeout=EVENTUALLY_S,
        check=True,
    )
    return result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_documented_line_prints_script(shell: str, tmp_path: Path) -> None:
    page = docs.read("deployment.md")
    assert f"_CLUSTERER_COMPLETE={shell}_source clusterer > " in page
    script = complete(_CLUSTERER_COMPLETE=f"{shell}_source")
    assert f"_CLUSTERER_COMPLETE={shell}_complete" in script
    program = shutil.which(shell)
    if program is not None:
        path = tmp_path / "script"
        path.write_text(script)
        subprocess.run([program, "-n", path], timeout=EVENTUALLY_S, check=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("clusterer set-", "set-status"),
        ("clusterer worker ", "maintenance"),
        ("clusterer events --s", "--since"),
        ("clusterer list --log-format ", "json"),
    ],
)
def test_commands_options_and_values_are_completed(line: str, expected: str) -> None:
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    out = complete(
        _CLUSTERER_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)
    )
    assert expected in {found.partition(",")[2] for found in out.splitlines()}
