"""The measurement of benchmarks/kubeedge.py: clusters of both kinds, one after the other, a job on each."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engram.spec.names import CRD_NAME, Reason
from tests.cluster import base_image, binaries, lifecycle, node_level
from tests.cluster.api import Api, ApiError
from tests.cluster.fixtures import until_established
from tests.cluster.node_level import Edge, NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.broken import NAME, SPEC, passed
from tests.e2e.jobs import OPERATOR, SYSTEM, Jobs, build_job
from tests.e2e.training import Training

ROOT = Path(__file__).resolve().parents[1]
EDGE, NAMESPACE = "edge1", "measured"
CUT = 45.0
"""Seconds: the aggregator calls a worker disconnected after 30."""
AFTER = 30.0
"""Seconds after the mending in which bytes are counted."""
ROUNDS = 1000
"""More than the measuring lasts: the job is deleted then."""
ROWS: Mapping[str, str] = {
    "nodes_ready_seconds": "start of the cluster to all nodes Ready, s",
    "first_round_seconds": "apply to the first closed round, s",
    "offline_told_seconds": "cut to NodeOffline in the status, s",
    "worker_back_seconds": "mending to the worker connected, s",
    "round_seconds": "mending to the next closed round, s",
    "node_ready_seconds": "mending to the node Ready, s",
    "agent_bytes": f"bytes between node and control plane, {AFTER:.0f} s from the mending",
    "pods_bytes": f"bytes of the worker's pods, {AFTER:.0f} s from the mending",
    "agent_bytes_before": f"bytes between node and control plane, {AFTER:.0f} s before the cut",
}
BEGIN, END = "<!-- figures: python benchmarks/kubeedge.py -->", "<!-- end of figures -->"

Figures = dict[str, list[float]]


def measure(edge: Edge, repeat: int) -> Figures:
    """Return every figure of nodes of one kind, `repeat` times."""
    directory, found = lifecycle.own_directory(), dict[str, list[float]]()
    began = time.monotonic()
    lifecycle.up(directory, node_level.NAMES, edge=edge, owned=True)
    add(found, nodes_ready_seconds=time.monotonic() - began)
    level = node_level.load(directory)
    if level is None:
        raise RuntimeError(f"no nodes in {directory.path}")
    try:
        jobs = deployed(level)
        level.network.meter(EDGE)
        for _ in range(repeat):
            one_run(level, jobs, found)
        jobs.api.close()
    finally:
        lifecycle.down(directory)
    return found


def deployed(level: NodeLevel) -> Jobs:
    """Deploy the operator as `make deploy` does; return the jobs of a namespace."""
    api, kubectl = level.api(), level.kubectl()
    kubectl.run("apply", "--server-side", f"--filename={ROOT / 'crds'}", f"--filename={ROOT / 'deploy'}")
    until_established(api, CRD_NAME)
    kubectl.inside(SYSTEM).run("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s", seconds=130)
    kubectl.run("create", "namespace", NAMESPACE)
    return Jobs(api, kubectl.inside(NAMESPACE))


def one_run(level: NodeLevel, jobs: Jobs, found: Figures) -> None:
    """Start the job, cut and mend the cable, delete the job."""
    spread = [group for group in SPEC["workers"] if group["name"] != "edge"]  # one on each node
    spec = {**SPEC, "training": {**SPEC["training"], "roundsPerTask": ROUNDS}, "workers": spread}
    began = time.monotonic()
    training = Training(jobs, level, build_job(NAME, spec))
    try:
        first = training.recording.first(lambda sample: sample.round > 1, "the first round", seconds=240)
        before, _ = level.network.metered(EDGE)
        passed(first.at + AFTER)
        after, _ = level.network.metered(EDGE)
        since = time.monotonic()
        level.network.cut(EDGE)
        try:
            told = training.told(Reason.NODE_OFFLINE, since)
            passed(since + CUT)
        finally:
            own, pods = level.network.metered(EDGE)
            mended = time.monotonic()
            level.network.mend(EDGE)
        back, ready = returned(training, jobs.api, mended)
        passed(mended + AFTER)
        own_after, pods_after = level.network.metered(EDGE)
        add(
            found,
            first_round_seconds=first.at - began,
            offline_told_seconds=told.seconds,
            worker_back_seconds=back,
            round_seconds=training.recording.closed(mended)[0] - mended,
            node_ready_seconds=ready,
            agent_bytes=own_after - own,
            pods_bytes=pods_after - pods,
            agent_bytes_before=after - before,
        )
    finally:
        training.close()
        jobs.kubectl.delete("fij", NAME, wait=False)
        jobs.nothing_left(NAME, ("Pod", "Job"))


def returned(training: Training, api: Api, mended: float) -> tuple[float, float]:
    """Return after how many seconds the worker was connected and the node Ready."""

    def ready() -> float:
        try:
            conditions = api.get("Node", EDGE)["status"]["conditions"]
        except ApiError as error:
            raise NotYet(str(error)) from None
        if not any(item["type"] == "Ready" and item["status"] == "True" for item in conditions):
            raise NotYet("it is not Ready")
        return time.monotonic() - mended

    seconds = until(ready, f"node {EDGE} to be Ready", seconds=120)
    found = training.recording.first(
        lambda sample: sample.status["workers"].get("connected") == sample.status["workers"]["desired"],
        "every worker connected",
        since=mended,
    )
    return found.at - mended, seconds


def add(found: Figures, **values: float) -> None:
    """Add a run's figures."""
    for key, value in values.items():
        found.setdefault(key, []).append(round(value, 1))


def table(figures: Mapping[str, Figures]) -> str:
    """Return the figures side by side."""
    kinds = list(figures)
    lines = [f"| | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    for key, what in ROWS.items():
        cells = (cell(figures[kind].get(key, ())) for kind in kinds)
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(values: Iterable[float]) -> str:
    """Return median, and smallest and largest."""
    known = sorted(values)
    if not known:
        return "-"
    small = known[-1] < 1000
    text = [
        f"{value:.1f}" if small else f"{value:,.0f}"
        for value in (statistics.median(known), known[0], known[-1])
    ]
    return text[0] if len(known) == 1 else f"{text[0]} ({text[1]} to {text[2]})"


def main(description: str) -> int:
    """Measure, print the table, and write it where it is wanted."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeat", type=int, default=3, help="runs on each kind of nodes (default: 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--page", type=Path, help="also write the table into this page, between its marks")
    options = parser.parse_args()
    node_level.check(Edge.KUBEEDGE)
    base_image.archives()
    lifecycle.sweep()
    figures = {str(edge): measure(edge, options.repeat) for edge in (Edge.KUBELET, Edge.KUBEEDGE)}
    print(table(figures))
    if options.json:
        facts: dict[str, Any] = {
            "command": " ".join(["python", "benchmarks/kubeedge.py", *sys.argv[1:]]),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_at_end": round(os.getloadavg()[0], 2),
            "kubernetes": binaries.SOURCES["kubelet"].version,
            "kubeedge": binaries.SOURCES["edgecore"].version,
        }
        options.json.write_text(json.dumps({**facts, "figures": figures}, indent=1) + "\n", encoding="utf-8")
    if options.page:
        text = options.page.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN, 1)
        tail = rest.split(END, 1)[1]
        options.page.write_text(f"{head}{BEGIN}\n{table(figures)}{END}{tail}", encoding="utf-8")
    return 0
