"""A real run with real faults, and jobs on a control plane, looked at through a real Prometheus."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from charts.dashboards.fleet import FLEET
from charts.dashboards.job import JOB
from charts.dashboards.model import Dashboard, Panel, Query
from engram.spec.names import METRICS, MetricName, Phase, worker_name
from tests.cluster.fixtures import Cluster
from tests.cluster.helm import Helm
from tests.observability.drawing import draw
from tests.observability.lab import (
    FORGETFUL,
    FORGIVING,
    NOT_HERE,
    PATIENCE,
    Lab,
    eventful_run,
    fleet_of,
    lab_in,
    quiet_run,
)
from tests.observability.prometheus import Series, program
from tests.observability.questions import Reader, named
from tests.run.pods import Process

pytestmark = [pytest.mark.control, pytest.mark.process, pytest.mark.timeout(900)]


@dataclass
class Observed:
    """What happened, and who can tell of it."""

    lab: Lab
    aggregator: Process
    end: float
    scrapes: Mapping[str, str]
    """Raw text of /metrics: the aggregator's in task 3, the operator's at the end."""
    third_task: float
    """When it was under way."""

    def reader_of(self, board: Dashboard) -> Reader:
        """Return somebody who looks at a dashboard afterwards: at the job's page, or at all jobs."""
        reader = Reader(self.lab.prometheus, self.lab.start, self.end, self.lab.namespace, "digits")
        return reader if board is JOB else replace(reader, namespace=".*", job=".*")

    def look(self, board: Dashboard, panel: Panel) -> list[tuple[Query, list[Series]]]:
        """Return the queries of a panel with their answers."""
        reader = self.reader_of(board)
        if panel.title == "Jobs that run":  # none does any more: look at it as it was
            reader = replace(reader, end=self.third_task)
        return [(query, reader.ask(query)) for query in panel.queries]


@pytest.fixture(scope="module")
def observed(control_plane: Cluster, crd: str, helm: Helm, folder: Path) -> Iterator[Observed]:
    """The run and the jobs; it takes about a minute."""
    program("promtool")
    with lab_in(folder, control_plane, helm) as lab, fleet_of(lab, control_plane) as fleet:
        job = lab.job("digits", aggregation=FORGIVING)
        pods = lab.pods(job)
        lab.strike("EngramJobPending", "EngramJobFailed")
        fleet.apply(lab.job("wrong", algorithm={"name": "replays"}), Phase.FAILED)
        fleet.apply(lab.job("waiting", workers=[{"name": "edge", "placement": "edge"}]), Phase.STARTING)
        fleet.apply(job, Phase.RUNNING)
        forgetful = lab.job("forgetful", **FORGETFUL)
        fleet.apply(forgetful, Phase.RUNNING)
        lab.strike("EngramAccuracyCollapsed")
        beside = quiet_run(lab.pods(forgetful), 2)
        aggregator = eventful_run(lab, pods)
        lab.prometheus.wait_for('engram_task{job="digits"} >= 3', PATIENCE)
        scrapes = {"aggregator": scraped(pods.status_port)}
        third_task = time.time()
        assert aggregator.end() == 0, aggregator.output
        assert beside.end() == 0, beside.output
        fleet.finish("digits", aggregator.last_word)
        fleet.finish("forgetful", beside.last_word)
        lab.prometheus.wait_for("count(engram_job_accuracy) == 2")
        scrapes["operator"] = scraped(fleet.operator.port)
        yield Observed(lab, aggregator, time.time(), scrapes, third_task)


def scraped(port: int) -> str:
    """What a scrape says. Never at the end of a run: the aggregator would take it for Prometheus' last."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def labels_seen(observed: Observed, name: MetricName) -> set[str]:
    """Labels that Prometheus has stored of a metric."""
    suffix = "_count" if METRICS[name].kind == "histogram" else ""
    found = observed.lab.prometheus.query(f"last_over_time({name}{suffix}[1h])")
    return {label for series in found for label in series.labels}


@pytest.mark.parametrize("name", [name for name in MetricName if name not in NOT_HERE])
def test_every_name_of_the_contract_is_exported_and_stored(observed: Observed, name: MetricName) -> None:
    assert set(METRICS[name].labels) <= labels_seen(observed, name)


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_cannot_be_measured_here_has_no_series(observed: Observed, name: MetricName) -> None:
    """The day that a run here exports it, it must leave the list."""
    assert labels_seen(observed, name) == set(), f"take it off the list: {NOT_HERE[name]}"


@pytest.mark.parametrize("source", ["aggregator", "operator"])
def test_prometheus_own_tool_finds_nothing_to_complain_of(observed: Observed, source: str) -> None:
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(
        command, input=observed.scrapes[source], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_last_values_outlive_the_run(observed: Observed) -> None:
    """An aggregator that ends between two scrapes waits for one more: what is stored is how it ended."""
    prometheus, of = observed.lab.prometheus, f'namespace="{observed.lab.namespace}", job="digits"'
    summary = observed.aggregator.summary
    assert prometheus.query(f"engram_progress_ratio{{{of}}}") == [], "the aggregator is gone"
    for name, value in {
        MetricName.PROGRESS_RATIO: 1.0,
        MetricName.ROUND: float(summary.rounds),
        MetricName.ACCURACY: float(summary.metrics["accuracy"]),
        MetricName.FORGET_RATE: float(summary.metrics["forgetRate"]),
        MetricName.RESUMES: float(summary.resumes),
    }.items():
        (series,) = prometheus.query(f"last_over_time({name}{{{of}}}[1h])")
        assert series.value == pytest.approx(value, abs=1e-4), name
    assert summary.matrix is not None
    cells = prometheus.query(f"last_over_time({MetricName.TASK_ACCURACY}{{{of}}}[1h])")
    stored = {(int(c.labels["after_task"]), int(c.labels["task"])): c.value for c in cells}
    told = {
        (after, task): value
        for after, row in enumerate(summary.matrix, start=1)
        for task, value in enumerate(row, start=1)
    }
    assert stored == pytest.approx(told)


def test_workers_are_seen_without_being_scraped(observed: Observed) -> None:
    """Their figures come over the training connection: Prometheus needs no way to an edge node."""
    pods = ["digits-aggregation-0", "engram-operator-0", "forgetful-aggregation-0"]
    assert sorted(observed.lab.prometheus.targets()) == pods
    for name, metric in METRICS.items():
        if "worker" not in metric.labels or name in NOT_HERE:
            continue
        found = observed.lab.prometheus.query(f'last_over_time({name}{{job="digits"}}[1h])')
        workers = {series.labels["worker"] for series in found}
        assert workers == {worker_name("edge", i) for i in range(3)}, name
        assert {series.labels["pod"] for series in found} == {"digits-aggregation-0"}


PANELS = [(board, panel) for board in (JOB, FLEET) for panel in board.panels]
EMPTY = {
    "GPU use": "only the driver of a GPU can say it",
}
"""Panels that this run leaves empty, and why; Prometheus has still taken their queries."""


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda part: part.title)
def test_every_query_of_every_panel_returns_data(observed: Observed, board: Dashboard, panel: Panel) -> None:
    for query, found in observed.look(board, panel):
        assert bool(found) != (panel.title in EMPTY), (EMPTY.get(panel.title), query.expr)
        names = [named(query.legend, series.labels) for series in found]
        if query.legend:
            assert len(set(names)) == len(names), "lines of the same name"
            assert all(names)


@pytest.mark.parametrize("board", [JOB, FLEET], ids=lambda board: board.title)
def test_the_variables_offer_the_run(observed: Observed, board: Dashboard) -> None:
    choices = observed.reader_of(JOB).choices(board)
    assert choices["namespace"] == [observed.lab.namespace]
    assert "digits" in choices["job"]


def test_states_of_workers_are_told_by_their_numbers(observed: Observed) -> None:
    (panel,) = (panel for panel in JOB.panels if panel.kind == "state-timeline")
    words = {float(number): word for number, word, _ in panel.mappings}
    found = {
        series.labels["worker"]: {words[value] for _, value in series.points}
        for series in observed.look(JOB, panel)[0][1]
    }
    assert "disconnected" in found[worker_name("edge", 2)]
    assert all("training" in states for states in found.values())


@pytest.mark.parametrize(
    ("alert", "labels"),
    [
        ("EngramWorkerDisconnected", {"job": "digits", "worker": worker_name("edge", 2)}),
        ("EngramRoundDegraded", {"job": "digits"}),
        ("EngramUpdatesRejected", {"job": "digits", "reason": "unauthorised"}),
        ("EngramAccuracyCollapsed", {"job": "forgetful"}),
        ("EngramJobPending", {"job": "waiting"}),
        ("EngramJobFailed", {"job": "wrong"}),
    ],
)
def test_its_fault_fires_the_alert_and_nothing_before(
    observed: Observed, alert: str, labels: dict[str, str]
) -> None:
    observed.lab.until_fires(alert, labels)
    assert min(observed.lab.firing(alert, labels)) >= observed.lab.faults[alert]


@pytest.mark.parametrize("board", [JOB, FLEET], ids=lambda board: board.uid)
def test_a_picture_of_each_dashboard_can_be_drawn(
    observed: Observed, board: Dashboard, tmp_path: Path
) -> None:
    """Those of docs/ are made here, too: `make pictures`."""
    folder = Path(os.environ.get("ENGRAM_PICTURES") or tmp_path)
    file = folder / f"{board.uid.replace('engram', 'dashboard')}.png"
    drawn = draw(board, observed.reader_of(board), file, observed.look)
    assert file.stat().st_size > 50_000
    assert drawn == [panel.title for panel in board.panels if panel.title not in EMPTY]
