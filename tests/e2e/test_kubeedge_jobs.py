"""Jobs whose edge workers KubeEdge's edgecore runs: they end as on this machine, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.spec.names import Phase, Role, worker_name
from tests.cluster.api import Api, Object
from tests.cluster.fixtures import Cluster
from tests.cluster.kubectl import KubectlError
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.broken import pinned
from tests.e2e.examples import digits_end_as_here, street_signs_train_where_they_belong
from tests.e2e.jobs import Jobs, build_job, node_of
from tests.e2e.reference import run_here
from tests.e2e.test_jobs import small
from tests.e2e.test_metrics import figures_arrive
from tests.e2e.volumes import Volumes

pytestmark = [pytest.mark.nodes, pytest.mark.kubeedge, pytest.mark.timeout(600)]

NAME = "digits"
EXPOSED: Object = {"expose": {"type": "NodePort"}}
CAUSE = "the camera is gone"
BROKEN = f"""
import sys
from engram.__main__ import main
from engram.federation.worker import WorkerSession
def broken(self, *arguments):
    raise RuntimeError({CAUSE!r})
WorkerSession._train = broken
sys.argv = ["engram", "worker"]
sys.exit(main())
"""
"""Starts a worker that crashes when it is asked to train."""


def test_the_digits_example_ends_as_on_this_machine(jobs: Jobs, tmp_path: Path) -> None:
    digits_end_as_here(jobs, tmp_path)


def test_cameras_archive_and_gpu_train_where_they_belong(
    control_plane: Cluster, operator: str, api: Api, level: NodeLevel, volumes: Volumes, tmp_path: Path
) -> None:
    street_signs_train_where_they_belong(control_plane.kubectl, api, level, volumes, tmp_path)


@pytest.mark.parametrize("exposed", ["NodePort", "HostPort"])
def test_edge_workers_train_over_an_exposed_port(exposed: str, jobs: Jobs, tmp_path: Path) -> None:
    aggregator: Object = {"expose": {"type": exposed}}
    if exposed == "HostPort":
        aggregator["nodeName"] = "cloud"
    group = {"name": "edge", "replicas": 2, "placement": "edge"}
    job = build_job(NAME, small(workers=[group], aggregator=aggregator))

    jobs.apply(job)
    jobs.kubectl.wait(f"fij/{NAME}", "condition=Complete", seconds=240)

    assert jobs.matrix(NAME) == run_here(job, tmp_path)
    assert {node_of(pod) for pod in jobs.pods(NAME, Role.WORKER)} <= {"edge1", "edge2"}
    port = jobs.status(NAME)["aggregator"]["endpoint"].rpartition(":")[2]
    assert (port == "7363") == (exposed == "HostPort")


def test_figures_of_workers_arrive_over_the_training_connection(
    api: Api, jobs: Jobs, level: NodeLevel, tmp_path: Path
) -> None:
    figures_arrive(api, jobs, level, tmp_path, replicas=1)


def test_last_words_of_a_worker_arrive_where_its_log_is_out_of_reach(jobs: Jobs) -> None:
    main = {"name": "main", "command": ["python", "-c", BROKEN], "args": []}
    group = pinned("edge", "edge1")
    group["podTemplate"]["spec"]["containers"] = [main]
    jobs.apply(build_job(NAME, small(workers=[group], aggregator=EXPOSED)))
    told = f"{worker_name('edge', 0)} ended with exit code 1: RuntimeError: {CAUSE}"

    def said() -> bool:
        (aggregator,) = jobs.pods(NAME, Role.AGGREGATOR)
        log = jobs.kubectl.run("logs", aggregator["metadata"]["name"])
        if told not in log or "Traceback (most recent call last)" not in log:
            raise NotYet(log)
        return True

    jobs.in_phase(NAME, Phase.RUNNING)
    until(said, "the worker's words in the log of the aggregator", seconds=150, every=0.5)
    with pytest.raises(KubectlError, match="connection refused"):
        jobs.kubectl.run("logs", jobs.pods(NAME, Role.WORKER)[0]["metadata"]["name"])
