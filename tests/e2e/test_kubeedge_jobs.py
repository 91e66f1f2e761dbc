"""Jobs whose edge workers KubeEdge's edgecore runs: they end as on this machine, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.spec.names import Role
from tests.cluster.api import Api, Object
from tests.cluster.fixtures import Cluster
from tests.cluster.node_level import NodeLevel
from tests.e2e.examples import digits_end_as_here, street_signs_train_where_they_belong
from tests.e2e.jobs import Jobs, build_job, node_of
from tests.e2e.reference import run_here
from tests.e2e.test_jobs import small
from tests.e2e.volumes import Volumes

pytestmark = [pytest.mark.nodes, pytest.mark.kubeedge, pytest.mark.timeout(600)]

NAME = "digits"


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
