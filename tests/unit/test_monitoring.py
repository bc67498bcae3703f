"""Dashboard and alert rules, as Prometheus reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support import docs
from tests.support.promtool import needs_promtool, promtool
from tests.support.transcripts import plain, shown

MONITORING = docs.DOCS / "monitoring"
BOARD = json.loads((MONITORING / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
RULES = (MONITORING / "alerts.yml").read_text()
ALERTS = re.findall(r"(?m)^ +- alert: (\w+)$", RULES)


@needs_promtool
def test_promtool_accepts_the_rules_and_they_fire_when_they_must() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml", cwd=MONITORING)
    said = promtool("test", "rules", "alerts_test.yml", cwd=MONITORING)
    page = docs.section("monitoring.md", "Dashboard and alerts")
    assert plain(said) == plain(shown(page, "promtool test rules alerts_test.yml"))


@needs_promtool
def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(QUERIES)
    ]
    # JSON is YAML.
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def test_every_alert_has_a_test_says_what_to_do_and_is_named_for_us() -> None:
    tests = (MONITORING / "alerts_test.yml").read_text()
    fires = {*re.findall(r"alertname=\"(\w+)\"}', value: 1", tests)}
    assert fires == {*ALERTS}
    assert RULES.count("- alert:") == RULES.count("expr:") == RULES.count("action:")
    assert all(name.startswith("Clusterer") for name in ALERTS)


def test_panels_have_numbers_and_places_of_their_own() -> None:
    assert len(QUERIES) >= 30
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        x, y, w, h = (panel["gridPos"][name] for name in "xywh")
        cells = {(across, down) for across in range(x, x + w) for down in range(y, y + h)}
        assert not cells & taken, panel["title"]
        assert x + w <= 24
        taken |= cells
