"""Dashboard and alert rules, as Prometheus reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support import docs
from tests.support.dashboard import BOARD, MONITORING, PANELS, query_of
from tests.support.promtool import needs_promtool, promtool
from tests.support.transcripts import plain, shown

QUERIES = [query_of(target) for panel in PANELS for target in panel["targets"]]
RULES = (MONITORING / "alerts.yml").read_text()
ALERTS = re.findall(r"(?m)^ +- alert: (\w+)$", RULES)


@needs_promtool
def test_monitoring_rules_pass_promtool_and_fire() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml", cwd=MONITORING)
    said = promtool("test", "rules", "alerts_test.yml", cwd=MONITORING)
    page = docs.section("monitoring.md", "Dashboard and alerts")
    assert plain(said) == plain(shown(page, "promtool test rules alerts_test.yml"))


@needs_promtool
def test_monitoring_queries_of_dashboard_pass_promtool(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    # JSON is YAML.
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def test_monitoring_every_alert_has_test_advice_and_prefix() -> None:
    tests = (MONITORING / "alerts_test.yml").read_text()
    fires = {*re.findall(r"alertname=\"(\w+)\"}', value: 1", tests)}
    assert fires == {*ALERTS}
    assert RULES.count("- alert:") == RULES.count("expr:") == RULES.count("action:")
    assert all(name.startswith("Clusterer") for name in ALERTS)


def test_monitoring_panels_have_own_numbers_and_places() -> None:
    assert len(QUERIES) >= 30
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        x, y, w, h = (panel["gridPos"][name] for name in "xywh")
        cells = {(across, down) for across in range(x, x + w) for down in range(y, y + h)}
        assert not cells & taken, panel["title"]
        assert x + w <= 24
        taken |= cells
    assert {across for across, _ in taken} == set(range(24))
    assert len(taken) == 24 * (1 + max(down for _, down in taken)), "there is a hole"


def test_monitoring_dashboard_uses_given_source_and_variables() -> None:
    variables = {one["name"]: one for one in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    text = json.dumps(BOARD)
    used = {*re.findall(r"\$\{?(\w+)", text)} - {"__all", "__rate_interval", "__range"}
    assert used == variables.keys()
    assert BOARD["id"] is None, "Grafana gives it"
    asking = [*PANELS, *(one for panel in PANELS for one in panel["targets"])]
    asking += [one for one in variables.values() if one["type"] == "query"]
    for one in asking:
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


UNITS = {"short", "s", "pps", "Bps", "ops"}
"""Grafana's names of units that we use: a number, seconds, packets, bytes and events per second."""


def test_monitoring_every_panel_has_the_unit_of_its_queries() -> None:
    for panel in PANELS:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        assert unit in UNITS
        for target in panel["targets"]:
            assert _unit_of(target["expr"]) == unit, panel["title"]


def _unit_of(query: str) -> str:
    if "_seconds" in query:
        return "s"
    if "rate(" not in query:
        return "short"
    counted = re.search(r"_(packets|bytes)_total", query)
    return {"packets": "pps", "bytes": "Bps"}[counted[1]] if counted else "ops"


def test_monitoring_every_line_has_a_legend() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            grouped = re.match(
                r"(?:histogram_quantile\([\d.]+, )?\w+ ?by \(([\w, ]+)\)", target["expr"]
            )
            labels = {*grouped[1].split(", ")} - {"le"} if grouped else set()
            named = {*re.findall(r"{{(\w+)}}", target["legendFormat"])}
            assert named == labels, panel["title"]
