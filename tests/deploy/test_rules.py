"""The alerts and the dashboard of deploy/: their metrics exist; alerts fire, resolve, and link to a runbook."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.telemetry.metrics import Metrics, Readings, registry
from tests.processes import ROOT

pytestmark = pytest.mark.timeout(2_000)  # the first run builds promtool

RULES = ROOT / "deploy/prometheus/rules.yaml"
OBJECT = ROOT / "deploy/prometheus/prometheusrule.yaml"
UNIT_TESTS = ROOT / "tests/deploy/rules_test.yaml"
DASHBOARD = json.loads((ROOT / "deploy/grafana/kafka-webhooks.json").read_text())
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
PANELS = {"row", "stat", "table", "timeseries"}  # without those that Grafana has deprecated


def test_each_alert_fires_and_resolves(checker: Path) -> None:
    """Prometheus' own engine evaluates tests/deploy/rules_test.yaml."""
    for words in (["check", "rules", str(RULES)], ["test", "rules", str(UNIT_TESTS)]):
        done = subprocess.run([checker, *words], capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_is_left_untested() -> None:
    """Each has a time at which it fires, and earlier and later ones at which it does not."""
    seen: dict[str, list[bool]] = {}
    for group in yaml.safe_load(UNIT_TESTS.read_text())["tests"]:
        for each in group["alert_rule_test"]:
            seen.setdefault(each["alertname"], []).append(bool(each["exp_alerts"]))
    assert seen.keys() == {each["alert"] for each in ALERTS}
    assert all(moments[:3] == [False, True, False] for moments in seen.values())


def test_the_object_has_the_same_rules() -> None:
    """The script writes it for Prometheus' operator."""
    script = ROOT / "deploy/prometheus/prometheusrule.py"
    namespace: dict[str, Any] = {"__name__": "prometheusrule", "__file__": str(script)}
    exec(compile(script.read_text(), str(script), "exec"), namespace)  # noqa: S102 (our own file, which is no module)
    assert OBJECT.read_text() == namespace["prometheus_rule"](), "run python deploy/prometheus/prometheusrule.py"
    written = yaml.safe_load(OBJECT.read_text())
    assert written["kind"] == "PrometheusRule"
    assert written["spec"] == yaml.safe_load(RULES.read_text())


@pytest.mark.parametrize("alert", ALERTS, ids=lambda each: each["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: dict[str, Any]) -> None:
    """It has a summary, a description, a severity, and a link to a heading of the runbooks."""
    assert alert["labels"]["severity"] in {"warning", "critical"}
    texts = alert["annotations"]
    assert texts.keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = texts["runbook_url"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
    assert f"`{alert['alert']}`" in (ROOT / page).read_text(), "its runbook names it"


def queries() -> Iterator[str]:
    """The expressions of the rules and the dashboard."""
    yield from (each["expr"] for each in ALERTS)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in DASHBOARD["templating"]["list"]:
        yield variable.get("definition", "")


def test_the_metrics_of_alerts_and_dashboard_exist() -> None:
    """Each is in a worker's registry, under the name of its samples."""
    families = list(registry(Metrics(), Readings).collect())
    exposed = {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}
    named = {name for query in queries() for name in re.findall(r"\b(?:webhooks|process)_\w+", query)}
    assert len(named) > 25
    assert named <= exposed


def test_the_dashboard_shows_all_metrics_of_a_worker() -> None:
    """Only the metrics of the process itself are left out."""
    families = {family.name for family in registry(Metrics(), Readings).collect()}
    shown = "\n".join(queries())
    assert {name for name in families if name.startswith("webhooks_") and name not in shown} == set()


def test_the_dashboard_has_current_panels() -> None:
    """Each has a type that is not deprecated and a description, and uses the selected data source."""
    for panel in DASHBOARD["panels"]:
        assert panel["type"] in PANELS
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["targets"]
            assert panel["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_filters_by_its_variables() -> None:
    """Each query selects the chosen namespaces and jobs."""
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == ["datasource", "namespace", "job", "topic"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            selectors = re.findall(r"(?:webhooks|process)_\w+(\{[^}]*\})?", target["expr"])
            assert all('namespace=~"$namespace", job=~"$job"' in each for each in selectors)
