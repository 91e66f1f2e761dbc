"""From nothing to a job with its report and full dashboards, by what a platform team types; each step timed.

    python benchmarks/install.py [--json FILE]

A cluster of three real nodes is started with the images in it, a Prometheus that finds its targets by the
chart's PodMonitors, then: helm install, kubectl apply, the job's end, its report, and every query of every
panel of both dashboards as they lie in the cluster. Images, and the programs of the cluster, are built before
the clock starts. Needs root and what `make e2e` needs. The exit code is 1 when it took longer than it may, or
a panel is empty that should not be.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from charts.dashboards.model import Query
from engram.spec.names import Phase
from tests.chart.conftest import CHART
from tests.chart.prometheus_operator import prometheus_operator_crds
from tests.cluster import base_image, binaries, lifecycle, node_level
from tests.cluster.api import Object
from tests.cluster.fixtures import until_established
from tests.cluster.helm import Helm
from tests.cluster.kubectl import Kubectl
from tests.cluster.node_level import NodeLevel
from tests.cluster.state import ClusterDirectory
from tests.e2e.jobs import SYSTEM, Jobs
from tests.e2e.monitoring import monitoring
from tests.observability.discovery import discovering
from tests.observability.prometheus import Prometheus
from tests.observability.questions import Reader

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "01-digits.yaml"
JOB, NAMESPACE = "digits", "default"
ALLOWED_SECONDS = 300.0
INTERVAL = 2
"""Seconds between scrapes: the example trains for half a minute."""
VALUES: Mapping[str, Any] = {
    "prometheus": {
        "monitor": {"enabled": True, "interval": f"{INTERVAL}s"},
        "rules": {"enabled": True},
    },
    "grafana": {"dashboards": {"enabled": True}},
}
RUNNING_ONLY = "Jobs that run"
"""The panel that is asked as it was while the job ran."""
EMPTY = {
    "engram_forward_transfer": "the example does not evaluate classes before their task",
    "engram_pseudo_label_accept_ratio": "the example has all its labels",
    "engram_pseudo_label_accuracy": "the example has all its labels",
    "engram_worker_gpu_utilization_ratio": "no GPU",
}
"""Metrics that this job does not have, and why."""


@dataclass
class Clock:
    """The steps, and the seconds that each took."""

    steps: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens in the block."""
        began = time.monotonic()
        yield
        self.steps.append((name, round(time.monotonic() - began, 1)))
        print(line(*self.steps[-1]), flush=True)

    @property
    def total(self) -> float:
        """Seconds of all steps."""
        return round(sum(seconds for _, seconds in self.steps), 1)


@dataclass(frozen=True)
class Panels:
    """What came of the dashboards' queries."""

    asked: int
    """Queries."""
    silent: Mapping[str, Sequence[str]]
    """Panel -> its queries that had no data."""

    @property
    def answered(self) -> int:
        """Queries that had data."""
        return self.asked - sum(map(len, self.silent.values()))

    @property
    def missing(self) -> list[str]:
        """Panels without data that they should have."""
        return [
            title
            for title, queries in self.silent.items()
            if not all(any(name in query for name in EMPTY) for query in queries)
        ]

    def reasons(self) -> dict[str, str]:
        """Return panel -> why a query of it has no data."""
        return {
            title: next((why for name, why in EMPTY.items() if name in queries[0]), "not known")
            for title, queries in self.silent.items()
        }


def line(step: str, seconds: float) -> str:
    """Return a row of the table, as docs/kubernetes.md has it."""
    return f"| {step} | {seconds:.1f} s |"


def measured(directory: ClusterDirectory, folder: Path, clock: Clock) -> Panels:
    """Carry out all steps; the caller ends the cluster."""
    crds = prometheus_operator_crds()
    with clock.step("three nodes are up, images in all of them"):
        lifecycle.up(directory, node_level.NAMES, owned=True)
    level = node_level.load(directory)
    if level is None:
        raise RuntimeError("the cluster has no nodes")
    api, kubectl = level.api(), level.kubectl()
    try:
        with clock.step("CRDs of the Prometheus Operator"):
            kubectl.apply(*crds.values(), flags=("--server-side",))
            for name in crds:
                until_established(api, name)
        with clock.step("`helm install engram charts/engram`, operator Ready"):
            kubectl.apply(json.dumps(system_namespace()))
            helm = Helm(CHART, directory.kubeconfig, SYSTEM)
            helm.install("engram", "--wait", "--timeout=120s", values=VALUES)
        monitors = kubectl.inside(SYSTEM).list("podmonitor")
        rules = kubectl.inside(SYSTEM).get("prometheusrule", "engram")["spec"]
        with (
            monitoring(level, "cloud", folder, interval=INTERVAL, rules=rules) as found,
            discovering(found.prometheus, monitors, level.api),
        ):
            return _job(level, found.prometheus, Jobs(api, kubectl.inside(NAMESPACE)), folder, clock)
    finally:
        api.close()


def system_namespace() -> Object:
    """Return the operator's namespace, as docs/kubernetes.md makes it."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}}


def _job(level: NodeLevel, prometheus: Prometheus, jobs: Jobs, folder: Path, clock: Clock) -> Panels:
    start = time.time()
    with clock.step("`kubectl apply -f examples/01-digits.yaml` to Running"):
        jobs.apply(EXAMPLE)
        jobs.in_phase(JOB, Phase.RUNNING)
    with clock.step("Running to Complete"):
        prometheus.wait_for("engram_task >= 3")
        running = time.time()
        jobs.kubectl.wait(f"fij/{JOB}", "condition=Complete", seconds=240)
    with clock.step("ReportReady"):
        jobs.kubectl.wait(f"fij/{JOB}", "condition=ReportReady", seconds=120)
    with clock.step(f"`engram report --cluster {NAMESPACE}/{JOB}`"):
        fetch(level.directory.kubeconfig, folder / "report")
    with clock.step("every query of every panel"):
        prometheus.wait_for("engram_job_accuracy")
        reader = Reader(prometheus, start, time.time(), NAMESPACE, JOB, step=INTERVAL)
        return ask_all(installed_panels(level.kubectl()), reader, running)


def fetch(kubeconfig: Path, out: Path) -> None:
    """Fetch the report as a user does. Raises RuntimeError with what was said instead."""
    command = [sys.executable, "-m", "engram", "report", "--cluster", f"{NAMESPACE}/{JOB}"]
    command += ["--kubeconfig", str(kubeconfig), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    if done.returncode or not (out / "report.html").is_file():
        raise RuntimeError(done.stderr.strip() or f"no report in {done.stdout}")


def installed_panels(kubectl: Kubectl) -> list[tuple[str, list[Query]]]:
    """Return title and queries of each panel of the dashboards in the cluster's ConfigMaps."""
    found = []
    for item in kubectl.inside(SYSTEM).list("configmap", "grafana_dashboard=1"):
        for text in item["data"].values():
            for panel in json.loads(text)["panels"]:
                if panel["type"] != "row":
                    queries = [Query(target["expr"], once=target["instant"]) for target in panel["targets"]]
                    found.append((panel["title"], queries))
    return found


def ask_all(panels: Sequence[tuple[str, Sequence[Query]]], reader: Reader, running: float) -> Panels:
    """Ask every query of every panel."""
    while_running = replace(reader, end=running)
    silent: dict[str, list[str]] = {}
    for title, queries in panels:
        one = while_running if title == RUNNING_ONLY else reader
        for query in queries:
            if not one.ask(query):
                silent.setdefault(title, []).append(query.expr)
    return Panels(sum(len(queries) for _, queries in panels), silent)


def main() -> int:
    """Measure, print the table, and return 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is ended, too
    clock, directory = Clock(), ClusterDirectory.named(f"install-{os.getpid()}")
    load = round(os.getloadavg()[0], 2)
    try:
        for name in (*binaries.CONTROL_PLANE, "helm", "kubelet", "kube-proxy", "coredns", "pause", "probe"):
            binaries.find(name)
        base_image.archives()
        print("| step | time |\n|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            panels = measured(directory, Path(folder), clock)
    except (binaries.Unavailable, RuntimeError, TimeoutError) as problem:
        print(f"benchmarks/install.py: {problem}", file=sys.stderr)
        return 2
    finally:
        lifecycle.down(directory)
    print(line("**together**", clock.total))
    print(f"queries of panels: {panels.asked}, with data: {panels.answered}; without:")
    for title, why in panels.reasons().items():
        print(f"  {title}: {why}")
    reached = clock.total <= ALLOWED_SECONDS and not panels.missing
    if options.json:
        content = {
            "command": "python benchmarks/install.py --json docs/benchmark/install.json",
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_before": load,
            "steps": [{"step": step, "seconds": seconds} for step, seconds in clock.steps],
            "seconds": clock.total,
            "at_most": ALLOWED_SECONDS,
            "queries": panels.asked,
            "queries_with_data": panels.answered,
            "without_data": panels.reasons(),
            "reached": reached,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
