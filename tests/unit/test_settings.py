"""Sources of settings, their precedence, and messages about wrong values."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from clusterer.errors import SettingsError
from clusterer.settings import Settings, as_environment
from clusterer.settings.sources import ORIGINS_VARIABLE, load_settings, origins


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_guide() -> None:
    settings = load_settings(environ={})
    assert settings == Settings()
    assert settings.db_table == "clusterer"
    assert settings.persistent_mode is False
    assert settings.clusterer_id_col == "id"


def test_settings_source_wins_over_earlier_source(tmp_path: Path) -> None:
    config = write(tmp_path / "c.toml", "server_id = 1\nlinger = 1\nsend_timeout = 1\n")
    environ = {"CLUSTERER_LINGER": "2", "CLUSTERER_SEND_TIMEOUT": "2"}
    settings = load_settings({"send_timeout": 3.0}, config=config, environ=environ)
    assert (settings.server_id, settings.linger, settings.send_timeout) == (1, 2.0, 3.0)


def test_file_can_be_named_by_the_environment_and_have_a_section(tmp_path: Path) -> None:
    config = write(tmp_path / "c.toml", "[clusterer]\nserver_id = 7\npersistent_mode = true\n")
    settings = load_settings(environ={"CLUSTERER_CONFIG": str(config)})
    assert (settings.server_id, settings.persistent_mode) == (7, True)


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERER_SERVER_ID", "5")
    assert load_settings().server_id == 5


def test_none_counts_as_not_given() -> None:
    environ = {"CLUSTERER_SERVER_ID": "4"}
    assert load_settings({"server_id": None}, environ=environ).server_id == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1", True), ("Yes", True), (" on ", True), ("TRUE", True)),
        *(("0", False), ("no", False), ("Off", False), ("false", False), ("", False)),
    ],
)
def test_settings_boolean_words_are_read(text: str, value: bool) -> None:
    settings = load_settings(environ={"CLUSTERER_PERSISTENT_MODE": text})
    assert settings.persistent_mode is value


def test_whole_numbers_stand_for_seconds() -> None:
    settings = load_settings({"linger": 3}, environ={})
    assert settings.linger == 3.0
    assert isinstance(settings.linger, float)


NO_LIST = "opensips_3_clusters must be cluster_ids from 1 to 2147483647, separated by commas"
WRONG: list[tuple[str, Any, str]] = [
    ("server_id", "one", "server_id must be a whole number, not 'one'"),
    ("server_id", "1.5", "server_id must be a whole number, not '1.5'"),
    ("server_id", "-1", "server_id must be from 0 to 2147483647, not -1"),
    ("persistent_mode", "maybe", "persistent_mode must be yes or no, not 'maybe'"),
    ("linger", "nan", "linger must be from 0 to 3600, not nan"),
    ("probe_interval", "soon", "probe_interval must be a number, not 'soon'"),
    ("backlog", "keep", "backlog must be 'drop' or 'replay', not 'keep'"),
    ("db_table", "", "db_table must not be empty"),
    ("delivery_queue", "", "delivery_queue must not be empty"),
    *(
        ("opensips_3_clusters", text, f"{NO_LIST}, not {text!r}")
        for text in ("0", "2,", ",2", "2 5", "2;5", "-2", "2147483648", "9" * 30, "two", "²")
    ),
]


@pytest.mark.parametrize(("name", "text", "message"), WRONG)
def test_wrong_value_names_setting_and_origin(name: str, text: str, message: str) -> None:
    variable = f"CLUSTERER_{name.upper()}"
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={variable: text})
    assert str(caught.value) == f"{message} ({variable})"
    with pytest.raises(SettingsError) as caught:
        load_settings({name: text}, environ={})
    assert str(caught.value) == f"{message} (argument)"


@pytest.mark.parametrize(
    ("text", "cluster_ids"),
    [
        ("", ()),
        (" ", ()),
        ("2", (2,)),
        ("2,5", (2, 5)),
        (" 5 , 2,5 ", (2, 5)),
        ("2147483647", (2**31 - 1,)),
    ],
)
def test_settings_dialect3_has_ids_of_the_list(text: str, cluster_ids: tuple[int, ...]) -> None:
    settings = load_settings(environ={"CLUSTERER_OPENSIPS_3_CLUSTERS": text})
    assert settings.dialect3 == frozenset(map(int, cluster_ids))
    assert load_settings(environ=as_environment(settings)) == settings


@pytest.mark.parametrize("name", ["replicate_pipes_to", "accept_pipes_from"])
def test_settings_pipes_of_cluster_of_3x_are_refused(name: str) -> None:
    fault = f"^{name} must be a cluster of OpenSIPS 2.2, and opensips_3_clusters has 5$"
    with pytest.raises(SettingsError, match=fault):
        load_settings({"opensips_3_clusters": "2,5", name: 5}, environ={})
    assert load_settings({"opensips_3_clusters": "2,5", name: 1}, environ={}).dialect3 == {2, 5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("server_id", True), ("server_id", 1.5), ("persistent_mode", 2), ("db_table", 5)),
        *(("linger", [1]), ("backlog", {}), ("opensips_3_clusters", 2)),
    ],
)
def test_types_are_not_guessed(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} must be .*, not .* \(argument\)$"):
        load_settings({name: value}, environ={})
    with pytest.raises(SettingsError, match=f"^{name} must be "):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_unknown_setting_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path / "c.toml", "sever_id = 1\n")
    with pytest.raises(
        SettingsError, match=r"'sever_id' \(.*c\.toml\): did you mean 'server_id'\?"
    ):
        load_settings(config=config, environ={})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SERVERID", "SERVER_ID"),
        ("SEVER_ID", "SERVER_ID"),
        ("DB_URI", "DB_URL"),
        ("CONFG", "CONFIG"),
    ],
)
def test_misspelt_variable_is_refused(name: str, meant: str) -> None:
    message = f"unknown variable CLUSTERER_{name}: did you mean CLUSTERER_{meant}\\?"
    with pytest.raises(SettingsError, match=message):
        load_settings(environ={f"CLUSTERER_{name}": "1"})


def test_variables_of_others_are_no_fault() -> None:
    kubernetes = ("SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_5566_TCP", "PORT_5566_TCP_ADDR")
    names = [f"CLUSTERER_{name}" for name in (*kubernetes, "IMAGE", "VERSION")]
    assert load_settings(environ=dict.fromkeys(names, "x")) == Settings()


def service_links(prefix: str, scheme: str = "tcp", ip: str = "10.96.0.7") -> dict[str, str]:
    """Return what Kubernetes and Docker make for a service with one named port."""
    host = f"[{ip}]" if ":" in ip else ip
    url, port = f"{scheme}://{host}:9400", f"{prefix}_PORT_9400_{scheme.upper()}"
    return {
        f"{prefix}_SERVICE_HOST": ip,
        f"{prefix}_SERVICE_PORT": "9400",
        f"{prefix}_SERVICE_PORT_METRICS": "9400",
        f"{prefix}_PORT": url,
        port: url,
        f"{port}_PROTO": scheme,
        f"{port}_PORT": "9400",
        f"{port}_ADDR": ip,
    }


@pytest.mark.parametrize("scheme", ["tcp", "udp", "sctp"])
@pytest.mark.parametrize("ip", ["10.96.0.7", "fd00::7"])
def test_load_settings_kubernetes_services_are_ignored(scheme: str, ip: str) -> None:
    """Whatever a service is called, and how like a setting's name that is."""
    names = ("CLUSTERER", *(f"CLUSTERER_{item.name.upper()}" for item in fields(Settings)))
    environ: dict[str, str] = {}
    for name in (*names, "CLUSTERER_METRICS", "CLUSTERER_REDIS", "CLUSTERER_CONFIG"):
        environ |= service_links(name, scheme, ip)
    told: list[str] = []
    assert load_settings(environ=environ, warn=told.append) == Settings()
    (line,) = told
    assert "CLUSTERER_METRICS_PORT=" in line
    assert "a service named clusterer-metrics;" in line
    assert "enableServiceLinks: false" in line


def test_load_settings_port_of_no_service_is_checked() -> None:
    for value in ("http://10.0.0.1:80", "tcp", ":9400", "9400/tcp"):
        with pytest.raises(SettingsError, match="CLUSTERER_METRICS_PORT"):
            load_settings(environ={"CLUSTERER_METRICS_PORT": value})
    with pytest.raises(SettingsError, match="did you mean CLUSTERER_METRICS_PORT"):
        load_settings(environ={"CLUSTERER_METRIC_PORT": "9400"})


def test_load_settings_service_link_leaves_file_in_force(tmp_path: Path) -> None:
    config = tmp_path / "clusterer.toml"
    config.write_text("metrics_port = 9400\n")
    environ = service_links("CLUSTERER_METRICS")
    assert load_settings(config=config, environ=environ, warn=str).metrics_port == 9400


@pytest.mark.parametrize("text", ["server_id = ", "clusterer = 5", "\udcff"])
def test_unreadable_file_is_named(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.toml"
    config.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=r"c\.toml"):
        load_settings(config=config, environ={})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read settings from .*nothing"):
        load_settings(config=tmp_path / "nothing", environ={})


CHANGED = replace(
    Settings(),
    db_url="mysql://u:p%40@h/d",
    server_id=3,
    persistent_mode=True,
    data_dir="here and there",
    probe_interval=0.1,
    send_timeout=1 / 3,
    backlog="replay",
    allow_foreign_source=True,
)


@pytest.mark.parametrize("settings", [Settings(), CHANGED], ids=["defaults", "changed"])
def test_environment_gives_the_same_settings_to_a_child(settings: Settings) -> None:
    assert load_settings(environ=as_environment(settings)) == settings


def test_environment_for_a_child_wins_over_a_file(tmp_path: Path) -> None:
    config = write(tmp_path / "c.toml", 'server_id = 1\nredis_url = "redis://other"\n')
    environ = as_environment(CHANGED) | {"CLUSTERER_CONFIG": str(config)}
    assert load_settings(environ=environ) == CHANGED


def test_settings_data_directory_default_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings(data_dir=str(tmp_path)).redis_socket == tmp_path / "redis.sock"
    monkeypatch.chdir(tmp_path)
    assert Settings(data_dir="state").data_path == tmp_path / "state"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Settings().data_path == tmp_path / "clusterer"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert Settings().data_path == Path("~/.local/share/clusterer").expanduser()


@pytest.mark.parametrize("name", ["redis_url", "db_url"])
def test_secret_file_gives_the_value_of_a_setting(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "secret", "redis://:pa ss@h/0\n")
    settings = load_settings(environ={f"CLUSTERER_{name.upper()}_FILE": str(file)})
    assert getattr(settings, name) == "redis://:pa ss@h/0"
    assert f"CLUSTERER_{name.upper()}_FILE" not in as_environment(settings)


def test_secret_file_loses_one_line_feed_only(tmp_path: Path) -> None:
    file = write(tmp_path / "secret", "redis://h/0\n\n")
    assert load_settings(environ={"CLUSTERER_REDIS_URL_FILE": str(file)}).redis_url[-3:] == "/0\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "holds nothing; write the URL into it"),
        (b" \n", "holds nothing"),
        (b"\xff hunter2", "holds no UTF-8 text"),
        (b"hunter2" * 10_000, "more than 65536 characters"),
    ],
)
def test_bad_secret_file_is_named_without_its_text(
    content: bytes | None, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(environ={"CLUSTERER_DB_URL_FILE": str(file)})
    assert "CLUSTERER_DB_URL_FILE" in str(caught.value)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_secret_file_beside_its_variable_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "secret", "redis://h/0\n")
    environ = {"CLUSTERER_REDIS_URL": "", "CLUSTERER_REDIS_URL_FILE": str(file)}
    with pytest.raises(SettingsError, match=r"CLUSTERER_REDIS_URL_FILE are both set"):
        load_settings(environ=environ)


def test_misspelt_secret_file_variable_is_an_error() -> None:
    with pytest.raises(SettingsError, match="did you mean CLUSTERER_REDIS_URL_FILE"):
        load_settings(environ={"CLUSTERER_REDIS_URL_FIEL": "x"})


def test_origins_name_the_source_of_each_setting(tmp_path: Path) -> None:
    config, secret = tmp_path / "settings.toml", tmp_path / "secret"
    config.write_text('linger = 1\nbacklog = "replay"\nserver_id = 3\n', encoding="utf-8")
    secret.write_text("mysql://u:pw@h/db", encoding="utf-8")
    environ = {"CLUSTERER_DB_URL_FILE": str(secret), "CLUSTERER_BACKLOG": "drop"}
    found = origins({"server_id": 4, "data_dir": None}, config=config, environ=environ)
    assert found.keys() == {item.name for item in fields(Settings)}
    assert {name: origin for name, origin in found.items() if origin != "default"} == {
        "linger": str(config),
        "backlog": "CLUSTERER_BACKLOG",
        "db_url": "CLUSTERER_DB_URL_FILE",
        "server_id": "command line",
    }


def test_origins_of_a_child_are_those_of_its_parent() -> None:
    settings = Settings(linger=1.0)
    handed = as_environment(settings) | {ORIGINS_VARIABLE: '{"linger": "/etc/c.toml", "x": 1}'}
    found = origins(environ=handed)
    assert (found["linger"], found["backlog"]) == ("/etc/c.toml", "CLUSTERER_BACKLOG")
    assert load_settings(environ=handed) == settings


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"linger": 1}', "[" * 200_000])
def test_origins_with_bad_variable_are_the_variables(text: str) -> None:
    found = origins(environ={"CLUSTERER_LINGER": "1", ORIGINS_VARIABLE: text})
    assert found["linger"] == "CLUSTERER_LINGER"
