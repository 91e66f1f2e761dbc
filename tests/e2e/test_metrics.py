"""Figures of workers on a node that nobody can reach: its network allows outward connections only."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.spec.names import METRICS, Phase, Role, worker_name
from tests.cluster import faults
from tests.cluster.api import Api
from tests.cluster.node_level import NodeLevel
from tests.e2e.jobs import Jobs, build_job, node_of
from tests.e2e.test_jobs import small
from tests.observability.lab import JOBS_MONITOR, NOT_HERE
from tests.observability.prometheus import Prometheus

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(900)]

SHUT, KUBELET_PORT = "edge1", 10250
NAME = "digits"


def test_workers_behind_a_router_are_on_the_dashboards(
    api: Api, jobs: Jobs, level: NodeLevel, tmp_path: Path
) -> None:
    figures_arrive(api, jobs, level, tmp_path, replicas=2)


def figures_arrive(api: Api, jobs: Jobs, level: NodeLevel, folder: Path, *, replicas: int) -> None:
    """Train on a node that lets no connection in, and find its workers' figures in Prometheus."""
    there = {"podTemplate": {"spec": {"nodeSelector": {"kubernetes.io/hostname": SHUT}}}}
    group = {"name": "edge", "replicas": replicas, "placement": "edge", **there}
    spec = small(
        rounds=120,  # a worker's memory is known from its first heartbeat on, after ten seconds
        workers=[group],
        aggregator={"expose": {"type": "NodePort"}},
        dataset={"name": "digits", "partition": {"method": "iid"}, "labelRatio": 0.5},
        algorithm={
            "name": "discmatch",
            "parameters": {"exemplarsPerWorker": 20, "threshold": 0.5, "warmupRounds": 0},
        },
    )
    client = api.client.configuration
    tls = {"ca_file": client.ssl_ca_cert, "cert_file": client.cert_file, "key_file": client.key_file}
    with (
        Prometheus(folder / "prometheus", interval=1.0, tls=tls) as prometheus,
        faults.outward_only(level, SHUT),
    ):
        assert level.network.refuses(SHUT, KUBELET_PORT)
        jobs.apply(build_job(NAME, spec))
        jobs.in_phase(NAME, Phase.RUNNING)
        (aggregator,) = jobs.pods(NAME, Role.AGGREGATOR)
        assert node_of(aggregator) != SHUT
        assert {node_of(pod) for pod in jobs.pods(NAME, Role.WORKER)} == {SHUT}
        pod = str(aggregator["metadata"]["name"])
        prometheus.scrape_through(client.host, JOBS_MONITOR, jobs.namespace, pod)
        for name, metric in METRICS.items():
            if "worker" in metric.labels and name not in NOT_HERE:
                for worker in (worker_name("edge", index) for index in range(replicas)):
                    # Seen once is enough: a fast run is over before all were asked for.
                    prometheus.wait_for(f'last_over_time({name}{{worker="{worker}"}}[1h])')
        jobs.in_phase(NAME, Phase.SUCCEEDED)
        (progress,) = prometheus.query("last_over_time(engram_progress_ratio[1h])")
        assert progress.value == 1.0, "the last values outlive the run"
        assert level.network.refuses(SHUT, KUBELET_PORT)
