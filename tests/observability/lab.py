"""What is observed: real runs with real faults, jobs and an operator, and the Prometheus that watches them.

The runs are processes as pods start them, over TLS on the loopback. On the control plane stand jobs of the
same names, whose pods a fake kubelet runs: what a real aggregator left as its last word ends them, so the
operator's figures are those of the real run.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engram.spec.names import API_VERSION, KIND, Label, MetricName, Phase, Role, worker_name
from engram.spec.tokens import worker_token
from tests.cluster.api import Object
from tests.cluster.fake_kubelet import Ending, FakeKubelet, end_pod
from tests.cluster.fixtures import Cluster, FakeNodes
from tests.cluster.helm import Helm
from tests.cluster.waiting import NotYet, until
from tests.control.explaining import new_namespace
from tests.control.operator_process import OperatorProcess, operator
from tests.observability.prometheus import SYSTEM, Prometheus
from tests.run.pods import UID, Pods, Process

JOBS_MONITOR, OPERATOR_MONITOR = "engram-jobs", "engram-operator"
STRANGERS_KEY = b"a key that no aggregator knows"
PATIENCE = 180.0
"""Seconds for what takes a few on a machine that is not busy."""

NOT_HERE: Mapping[MetricName, str] = {
    MetricName.WORKER_GPU_UTILIZATION_RATIO: "only the driver of a GPU can say it",
}
"""What this run cannot export, and why. tests/metrics checks the exporter with made-up values of these."""
SPEC: Mapping[str, Any] = {
    "dataset": {"name": "digits", "partition": {"method": "iid"}, "labelRatio": 0.5},
    "tasks": {"count": 4, "classesPerTask": 2},
    "model": {"name": "cnn", "parameters": {"channels": [4], "dense": 16}},
    "training": {
        "roundsPerTask": 5,
        "localSteps": 200,
        "batchSize": 8,
        "gradientClip": 1,
        "optimizer": {"learningRate": 0.05, "momentum": 0.9},
    },
    "algorithm": {
        "name": "discmatch",
        "parameters": {"exemplarsPerWorker": 30, "threshold": 0.6, "warmupRounds": 0},
    },
    "evaluation": {"unseen": True},
    "workers": [{"name": "edge", "replicas": 3}],
}
FORGETFUL: Mapping[str, Any] = {
    "algorithm": {"name": "finetune"},
    "tasks": {"count": 5, "classesPerTask": 2},
    "training": {**SPEC["training"], "roundsPerTask": 2, "localSteps": 100},
    "workers": [{"name": "edge", "replicas": 2}],
}
"""Five tasks, each of which drives out the one before."""
FORGIVING = {"quorum": 2, "roundDeadlineSeconds": 12}
"""Rounds go on with two of three workers."""


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the sections of `change` in place of its own."""
    return copy.deepcopy({**base, **change})


class Lab:
    """A namespace, its runs, and Prometheus.

    Args:
        faults: filled with what was done, and when; the keys are names of alerts.
    """

    def __init__(self, folder: Path, prometheus: Prometheus, namespace: str) -> None:
        self.folder, self.prometheus, self.namespace = folder, prometheus, namespace
        self.faults: dict[str, float] = {}
        self.start = self.ready = time.time()
        """When it began, and when the operator was scraped first."""
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def job(self, name: str, **change: Any) -> Object:
        """Return a job of this namespace: `SPEC` with other sections."""
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": merged(SPEC, change)}

    def pods(self, job: Object) -> Pods:
        """Prepare a run of a job; its aggregator will be scraped."""
        name = job["metadata"]["name"]
        folder = self.folder / name
        folder.mkdir()
        pods = Pods(folder, job)
        self._stack.callback(pods.close)
        self.prometheus.scrape(pods.status_port, JOBS_MONITOR, self.namespace, f"{name}-aggregation-0")
        return pods

    def strike(self, *alerts: str) -> None:
        """Note that what is done now is to fire these alerts."""
        for alert in alerts:
            self.faults[alert] = time.time()

    def firing(self, alert: str, labels: Mapping[str, str]) -> list[float]:
        """Return when Prometheus saw an alert fire."""
        wanted = {"alertname": alert, "alertstate": "firing", **labels}
        selector = ", ".join(f'{name}="{value}"' for name, value in wanted.items())
        found = self.prometheus.query(f"ALERTS{{{selector}}}[2h]")
        return sorted(moment for series in found for moment, _ in series.points)

    def until_fires(self, alert: str, labels: Mapping[str, str], seconds: float = PATIENCE) -> float:
        """Wait until an alert fires after its fault; return the seconds that it took."""
        fault = self.faults[alert]

        def fires() -> float:
            return next((moment for moment in self.firing(alert, labels) if moment >= fault), 0.0)

        return until(fires, f"{alert} to fire", seconds=seconds, every=0.3) - fault


def edges(number: int) -> list[str]:
    """Return the names of so many workers."""
    return [worker_name("edge", index) for index in range(number)]


def eventful_run(lab: Lab, pods: Pods) -> Process:
    """Run three workers through a stranger, a lost worker and a lost aggregator; return the latter."""
    name = pods.document["metadata"]["name"]
    of = f'namespace="{lab.namespace}", job="{name}"'
    first, second, third = edges(3)
    lab.strike("EngramRoundDegraded")  # on a busy machine a worker may be late from the start
    aggregator = pods.aggregator()
    workers = {worker: pods.worker(worker) for worker in (first, second, third)}
    lab.prometheus.wait_for(f"engram_round{{{of}}} >= 2", PATIENCE)

    token = pods.folder / "stranger.token"
    token.write_text(worker_token(STRANGERS_KEY, UID, first))
    lab.strike("EngramUpdatesRejected", "EngramWorkerDisconnected")
    stranger = pods.worker(first, ENGRAM_TOKEN_FILE=str(token))
    workers[third].kill()
    gone = f'engram_worker_state{{{of}, worker="{third}", state="disconnected"}}'
    lab.prometheus.wait_for(f"{gone} == 1", PATIENCE)
    lab.prometheus.wait_for(f"engram_rounds_degraded_total{{{of}}} >= 1", PATIENCE)
    workers[third] = pods.worker(third)
    lab.prometheus.wait_for(f"{gone} == 0", PATIENCE)
    lab.prometheus.wait_for(f'engram_updates_rejected_total{{{of}, reason="unauthorised"}} >= 1', PATIENCE)

    aggregator.terminate()
    aggregator = pods.aggregator()
    lab.prometheus.wait_for(f"engram_resumes_total{{{of}}} >= 1", PATIENCE)
    lab.prometheus.wait_for(f"engram_reconnects_total{{{of}}} >= 1", PATIENCE)
    assert stranger.end() == 44, stranger.output
    return aggregator


def quiet_run(pods: Pods, workers: int) -> Process:
    """Start a run without faults; return its aggregator."""
    aggregator = pods.aggregator()
    for worker in edges(workers):
        pods.worker(worker)
    return aggregator


class Fleet:
    """The jobs of the lab as objects on a control plane, with an operator that is scraped."""

    def __init__(self, lab: Lab, cluster: Cluster, process: OperatorProcess) -> None:
        self.lab, self.api, self.operator = lab, cluster.api, process

    def apply(self, job: Object, phase: Phase) -> None:
        """Create a job and wait until its status has a phase."""
        self.api.create(job)
        self.until_phase(job["metadata"]["name"], phase)

    def until_phase(self, name: str, phase: Phase) -> None:
        """Wait until a job's status has a phase."""

        def reached() -> bool:
            status = self.api.get(KIND, name, self.lab.namespace).get("status") or {}
            if status.get("phase") != phase:
                raise NotYet(f"{status.get('phase')} {status.get('reason')}: {status.get('message')}")
            return True

        until(reached, f"{name} to be {phase}", seconds=PATIENCE)

    def finish(self, name: str, last_word: str) -> None:
        """End a job's pods as a run ends, with what its real aggregator left."""
        self._end(name, Role.WORKER, "done")
        self._end(name, Role.AGGREGATOR, last_word)
        self.until_phase(name, Phase.SUCCEEDED)

    def _end(self, name: str, role: Role, message: str) -> None:
        labels = f"{Label.JOB}={name},{Label.ROLE}={role}"
        for pod in self.api.list("Pod", self.lab.namespace, labels=labels):
            end_pod(self.api, pod, Ending(0, message))


@contextmanager
def fleet_of(lab: Lab, cluster: Cluster) -> Iterator[Fleet]:
    """Run an operator for the lab's namespace, and a node for its pods."""
    nodes = FakeNodes(cluster.api)
    arguments = ("--namespace", lab.namespace, "--objects-seconds", "0")
    try:
        with (
            FakeKubelet(cluster.api),
            operator(cluster.kubeconfig, lab.folder / "operator.log", *arguments) as process,
        ):
            nodes("fake-cloud")
            lab.prometheus.scrape(process.port, OPERATOR_MONITOR, SYSTEM, "engram-operator-0")
            lab.prometheus.wait_for("engram_operator_last_event_age_seconds")
            lab.ready = time.time()
            yield Fleet(lab, cluster, process)
    finally:
        nodes.remove()
        cluster.api.delete("Namespace", lab.namespace)


def chart_rules(helm: Helm) -> dict[str, Any]:
    """Return the chart's alerts, with shorter times: a test cannot wait for an hour.

    Each fires after two seconds instead of minutes. A round is stuck after ten seconds instead of five
    minutes and an hour; the operator is taken for stalled after 65 seconds of silence instead of 180. All
    other windows, thresholds, labels and words are the chart's.
    """
    objects = helm.template(values={"prometheus": {"rules": {"enabled": True}}})
    spec: dict[str, Any] = next(item for item in objects if item["kind"] == "PrometheusRule")["spec"]
    text = json.dumps(spec)
    for long, short in (("engram_progress_ratio[5m]", "engram_progress_ratio[10s]"), ("> 180", "> 65")):
        assert text.count(long) == 1, f"{long} is no longer in the rules"
        text = text.replace(long, short)
    found: dict[str, Any] = json.loads(text)
    for group in found["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "2s"
    return found


@contextmanager
def lab_in(folder: Path, cluster: Cluster, helm: Helm, *, interval: float = 1.0) -> Iterator[Lab]:
    """Make a namespace and start Prometheus with the chart's rules."""
    namespace = new_namespace(cluster.api)
    with (
        Prometheus(folder / "prometheus", interval=interval, rules=chart_rules(helm)) as prometheus,
        Lab(folder, prometheus, namespace) as lab,
    ):
        yield lab
