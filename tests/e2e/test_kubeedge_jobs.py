"""Jobs whose edge workers KubeEdge's edgecore runs: they end as on this machine, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.spec.names import Reason, Role
from tests.cluster.api import Api, Object
from tests.cluster.fixtures import Cluster
from tests.cluster.kubectl import KubectlError
from tests.cluster.node_level import NodeLevel
from tests.e2e.broken import pinned
from tests.e2e.data import write_digits
from tests.e2e.examples import digits_end_as_here, street_signs_train_where_they_belong
from tests.e2e.jobs import Jobs, build_job, node_of
from tests.e2e.reference import run_here
from tests.e2e.test_jobs import small
from tests.e2e.test_metrics import figures_arrive
from tests.e2e.volumes import Volumes

pytestmark = [pytest.mark.nodes, pytest.mark.kubeedge, pytest.mark.timeout(600)]

NAME = "digits"
EXPOSED: Object = {"expose": {"type": "NodePort"}}


def test_the_digits_example_ends_as_on_this_machine(jobs: Jobs, tmp_path: Path) -> None:
    digits_end_as_here(jobs, tmp_path)


def test_cameras_archive_and_gpu_train_where_they_belong(
    control_plane: Cluster, operator: str, api: Api, level: NodeLevel, volumes: Volumes
) -> None:
    street_signs_train_where_they_belong(control_plane.kubectl, api, level, volumes)


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


def test_last_words_of_a_worker_arrive_where_its_log_is_out_of_reach(jobs: Jobs, level: NodeLevel) -> None:
    """Its own data are missing: an error that only the edge node can see."""
    (level.nodes["edge1"].root / "srv/empty").mkdir(exist_ok=True)
    volume = {"hostPath": {"path": "/srv/empty", "type": "Directory"}}
    group = {**pinned("edge", "edge1"), "dataset": {"path": "digits.npz", "volume": volume}}
    file = write_digits(level.nodes["cloud"].root / "srv/digits.npz")
    dataset = {"name": "npz", "path": file.name, "volume": {"hostPath": {"path": "/srv"}}}
    partition = {"partition": {"method": "local"}}
    jobs.apply(build_job(NAME, small(dataset={**dataset, **partition}, workers=[group], aggregator=EXPOSED)))

    status = jobs.reach(NAME, lambda found: Reason.DATA_ERROR in str(found), "the data error", seconds=150)
    (aggregator,) = jobs.pods(NAME, Role.AGGREGATOR)
    said = jobs.kubectl.run("logs", aggregator["metadata"]["name"])
    worker = jobs.pods(NAME, Role.WORKER)[0]["metadata"]["name"]

    assert "trainworker-edge-0 ended with exit code 43:" in said
    assert "digits.npz" in str(status["workerStatuses"])
    with pytest.raises(KubectlError, match="connection refused"):
        jobs.kubectl.run("logs", worker)
