"""Alerts: rules that Prometheus takes, over metrics that exist, each fired by its fault and no other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from engram.spec.names import METRICS, MetricName
from tests.chart.objects import one
from tests.cluster.helm import Helm

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "chart" / "alerts.yaml"
PAGE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.control


@pytest.fixture(scope="module")
def rules(helm: Helm) -> dict[str, Any]:
    """The chart's rules as Prometheus reads them."""
    objects = helm.template(values={"prometheus": {"rules": {"enabled": True}}})
    spec: dict[str, Any] = one(objects, "PrometheusRule")["spec"]
    return spec


@pytest.fixture(scope="module")
def alerts(rules: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}


@pytest.fixture(scope="module")
def promtool() -> str:
    """promtool, of Debian's package prometheus."""
    found = shutil.which("promtool")
    if found is None:
        reason = "promtool is not installed: on Debian and Ubuntu 'apt-get install prometheus'"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


def run(promtool: str, folder: Path, *arguments: str) -> str:
    command = [promtool, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules_and_fires_them_as_they_should(
    promtool: str, rules: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (tmp_path / CASES.name).write_text(CASES.read_text(encoding="utf-8"), encoding="utf-8")
    run(promtool, tmp_path, "check", "rules", "--lint-fatal", "rules.yaml")
    run(promtool, tmp_path, "test", "rules", CASES.name)


def test_prometheus_takes_the_configuration_in_the_guide(promtool: str, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", guide, re.DOTALL)
    discovery = "kubernetes_sd_configs: [{role: pod}]"
    assert discovery in text
    # Debian builds Prometheus without it.
    (tmp_path / "prometheus.yaml").write_text(text.replace(discovery, "static_configs: []"), encoding="utf-8")
    run(promtool, tmp_path, "check", "config", "prometheus.yaml")


def test_a_changed_threshold_counts(promtool: str, helm: Helm, tmp_path: Path) -> None:
    """The cases are no fair-weather friends: with another time one of them fails."""
    values = {"prometheus": {"rules": {"enabled": True, "workerDisconnectedFor": "15m"}}}
    changed = one(helm.template(values=values), "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    (tmp_path / CASES.name).write_text(CASES.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(AssertionError, match="EngramWorkerDisconnected"):
        run(promtool, tmp_path, "test", "rules", CASES.name)


def test_every_alert_is_seen_to_fire_and_to_stay_quiet(alerts: dict[str, Any]) -> None:
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    for case in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]:
        for item in case["alert_rule_test"]:
            seen[bool(item["exp_alerts"])].add(item["alertname"])
    assert seen[True] == set(alerts)
    assert seen[False] == set(alerts) - {"EngramJobFailed"}, "whose case has a job that must stay quiet"


def test_alerts_ask_for_metrics_and_labels_that_exist(alerts: dict[str, Any]) -> None:
    asked = {name for rule in alerts.values() for name in re.findall(r"engram_\w+", rule["expr"])}
    assert asked <= {str(name) for name in METRICS}
    for rule in alerts.values():
        for name, inside in re.findall(r"(engram_\w+)\{([^}]*)\}", rule["expr"]):
            labels = set(re.findall(r"(\w+)[=!]", inside))
            assert labels <= {*METRICS[MetricName(name)].labels, "namespace"}, name


def test_every_alert_says_what_happened_and_where_to_read_on(alerts: dict[str, Any]) -> None:
    for name, rule in alerts.items():
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}, name
        assert notes["runbook_url"] == f"docs/alerts.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_the_page_has_a_row_and_a_section_for_every_alert(alerts: dict[str, Any]) -> None:
    assert re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) == list(alerts)
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", PAGE, re.MULTILINE)
    assert rows == [(name, name.lower(), rule["labels"]["severity"]) for name, rule in alerts.items()]
