"""The report on real nodes: a Prometheus behind a login, other jobs on a leaderboard, what can be wrong."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.spec.names import Condition, Reason, worker_name
from tests.cluster.fixtures import Cluster
from tests.cluster.node_level import NodeLevel
from tests.e2e.jobs import Jobs, build_job, condition_of
from tests.e2e.monitoring import Monitoring, monitoring
from tests.e2e.reference import numbers_of, run_here
from tests.e2e.test_jobs import small
from tests.e2e.volumes import Volumes, build_claim
from tests.kubectl.jobs import plugin
from tests.observability.discovery import chart_monitors, discovering

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(900)]

LOGIN = "prometheus"
WORKERS = [worker_name("edge", index) for index in range(2)]
NOBODY = "https://10.77.0.11:9"
"""An address of the node where nobody listens."""


SLOWLY = """
import sys, time
from engram.learning.local_learner import Worker
from engram.__main__ import main

train = Worker.train

def slowly(self, order, progress):
    time.sleep(1)
    return train(self, order, progress)

Worker.train = slowly
sys.argv = ["engram", "worker"]
main()
"""
"""A worker whose rounds take a second, though nothing is computed meanwhile."""


@pytest.fixture
def blind(level: NodeLevel, tmp_path: Path) -> Iterator[Monitoring]:
    """A Prometheus that pods of the node `cloud` reach, and that scrapes nothing yet."""
    with monitoring(level, "cloud", tmp_path / "monitoring") as found:
        yield found


@pytest.fixture
def prometheus(level: NodeLevel, blind: Monitoring) -> Iterator[Monitoring]:
    """The same, and it finds pods as the chart's PodMonitors say."""
    with discovering(blind.prometheus, chart_monitors(), level.api):
        yield blind


def ended(jobs: Jobs, name: str) -> str:
    """Wait for the report of a job; return what `ReportReady` says of it."""
    jobs.kubectl.wait(f"fij/{name}", "condition=ReportReady", seconds=300)
    said = condition_of(jobs.status(name), Condition.REPORT_READY)
    assert said["reason"] == Reason.REPORT_STORED, said
    return str(said["message"])


def fetched(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    """Return the report.json that a command has put into a folder."""
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"report: {folder / 'report.html'}\n")
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_prometheus_and_other_jobs_are_in_the_report(
    control_plane: Cluster, jobs: Jobs, prometheus: Monitoring, volumes: Volumes, tmp_path: Path
) -> None:
    server, kubeconfig = prometheus.prometheus, ("--kubeconfig", control_plane.kubeconfig)
    asked = {"prometheus": {"url": prometheus.url, "secretName": LOGIN}}
    kept = volumes("reports", jobs.namespace)
    volume = {"persistentVolumeClaim": {"claimName": "reports"}}
    # A worker tells its memory every ten seconds: the run must be longer.
    first = build_job("first", small(rounds=150, report={**asked, "volume": volume}))
    jobs.apply(prometheus.secret(LOGIN), build_claim("reports"), first)
    ended(jobs, "first")
    compared = {"compareWith": {"names": ["first", "nobody"]}}
    second = small(rounds=20, algorithm={"name": "finetune"}, report={**asked, **compared})
    jobs.apply(build_job("second", second))
    said = ended(jobs, "second")
    assert "nobody is not on the leaderboard: it has no report yet, or there is no such job." in said

    out = tmp_path / "first"
    report = fetched(plugin("report", f"{jobs.namespace}/first", *kubeconfig, "--out", out), out)
    assert report["notes"] == []
    telemetry = report["telemetry"]
    assert telemetry["source"] == prometheus.url
    assert [row["name"] for row in telemetry["workers"]] == WORKERS
    for row in telemetry["workers"]:
        selector = f'engram_worker_memory_bytes{{job="first", worker="{row["name"]}"}}'
        (peak,) = server.query(f"max_over_time({selector}[1h])")
        assert row["peak_memory_bytes"] == peak.value > 30e6
        assert row["disconnected_seconds"] == 0
        assert {source for _, _, source in row["loss"]} == {"prometheus"}
    assert "Machines, by Prometheus" in (out / "report.html").read_text()

    here = run_here(first, tmp_path)
    assert here == jobs.matrix("first")
    assert numbers_of(report) == numbers_of(json.loads((tmp_path / "run/report.json").read_text()))
    (directory,) = kept.iterdir()
    assert directory.name == jobs.status("first")["report"]["location"]
    assert json.loads((directory / "report.json").read_text()) == report
    assert {"record.json", "job.yaml", "figures"} <= {path.name for path in directory.iterdir()}

    out = tmp_path / "second"
    command = [sys.executable, "-m", "engram", "report", "--cluster", f"{jobs.namespace}/second"]
    done = subprocess.run(
        [*command, *map(str, kubeconfig), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    report = fetched(done, out)
    assert len(report["telemetry"]["workers"]) == 2
    rows = list(csv.DictReader(io.StringIO((out / "leaderboard.csv").read_text())))
    ranked = [row["algorithm.name"] for row in rows]
    assert ranked == ["replay", "finetune"], "whoever forgets less is first"
    assert "replay" in (out / "leaderboard.html").read_text()


def test_what_is_wrong_around_a_report_is_said_and_costs_no_report(
    control_plane: Cluster, jobs: Jobs, prometheus: Monitoring, tmp_path: Path
) -> None:
    """A Prometheus that is not there, one that does not know the password, and a volume without room."""
    tiny = {"emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}}
    nobody = {"prometheus": {"url": NOBODY}, "volume": tiny}
    stranger = {"prometheus": {"url": prometheus.url, "secretName": LOGIN}}
    jobs.apply(
        prometheus.secret(LOGIN, password="wrong"),
        build_job("alone", small(report=nobody)),
        build_job("stranger", small(report=stranger)),
    )
    said = ended(jobs, "alone")
    unreachable = (
        f"Prometheus at {NOBODY} cannot be reached (Connection refused): "
        "the report is made of the run's record alone."
    )
    assert unreachable in said
    assert "The full report was not kept: spec.report.volume is full: make room on it." in said
    assert "location" not in jobs.status("alone")["report"]
    out, kubeconfig = tmp_path / "alone", ("--kubeconfig", control_plane.kubeconfig)
    done = plugin("report", f"{jobs.namespace}/alone", *kubeconfig, "--out", out)
    report = fetched(done, out)
    assert unreachable in report["notes"]
    assert unreachable in (out / "report.md").read_text()
    assert "telemetry" not in report
    assert "not kept, for want of a spec.report.volume that takes them" in done.stdout
    assert jobs.matrix("alone") == [row[: number + 1] for number, row in enumerate(report["task_accuracy"])]
    wrong = f"Prometheus at {prometheus.url} answers 401: put a token, or username and password, into"
    assert wrong in ended(jobs, "stranger")


def test_what_prometheus_has_not_seen_is_from_the_record(
    control_plane: Cluster, jobs: Jobs, level: NodeLevel, blind: Monitoring, tmp_path: Path
) -> None:
    """It scrapes from the middle of the run on, as after an outage of its own."""
    container = {"name": "main", "command": ["python", "-c", SLOWLY], "args": []}
    group = {"name": "edge", "replicas": 2, "podTemplate": {"spec": {"containers": [container]}}}
    asked = {"prometheus": {"url": blind.url, "secretName": LOGIN}}
    jobs.apply(blind.secret(LOGIN), build_job("late", small(rounds=55, workers=[group], report=asked)))
    jobs.in_round("late", 85)
    with discovering(blind.prometheus, chart_monitors(), level.api):
        ended(jobs, "late")
    out = tmp_path / "late"
    options = ("--kubeconfig", control_plane.kubeconfig, "--out", out)
    report = fetched(plugin("report", f"{jobs.namespace}/late", *options), out)
    assert report["notes"] == []
    for row in report["telemetry"]["workers"]:
        sources = [source for _, _, source in row["loss"]]
        assert sources == ["record"] * row["kept"] + ["prometheus"] * (len(sources) - row["kept"])
        assert 10 <= row["kept"] < 85
    first = sum(row["loss"][0][1] for row in report["telemetry"]["workers"]) / 2
    assert first == pytest.approx(report["rounds"][0]["loss"], rel=0.05), "of round 1"
    assert "losses that Prometheus lacks are from the run" in (out / "report.html").read_text()
