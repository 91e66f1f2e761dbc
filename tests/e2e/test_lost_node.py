"""The node that runs the aggregator goes and does not come back: what a person reads, and carries out.

Nobody but a person can know that the old aggregator is dead, and not only out of reach: two of them would
write one checkpoint. So Kubernetes replaces it only when it is told, and then the run goes on elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import pytest

from engram.spec.names import Condition, Reason, Role
from tests.cluster import faults
from tests.cluster.api import Object
from tests.cluster.node_level import NodeLevel
from tests.e2e.broken import MEMORY, NAME, SPEC
from tests.e2e.faulted import CLAIM, EARLY
from tests.e2e.jobs import Jobs, Matrix, build_job, condition_of, node_of, shared_volume
from tests.e2e.recovery import Report
from tests.e2e.reference import run_here
from tests.e2e.training import Training

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(1200)]

LOST, OTHER = "edge1", "edge2"
HERE = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [LOST]}]}
TEMPLATE: Object = {
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": HERE}]
        }
    },
    "tolerations": [
        {
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 2,
        }
    ],
}
"""On the node that gets lost, and given up by Kubernetes after two seconds instead of five minutes."""
GROUPS: list[Object] = [
    SPEC["workers"][0],
    {"name": "edge", "replicas": 2, "placement": "edge", "resources": {"limits": {"memory": MEMORY}}},
]
"""One worker in the cloud and two that any node at the edge may take."""
REMEDIES: Mapping[str, Callable[[NodeLevel, str], AbstractContextManager[None]]] = {
    "tainted": faults.out_of_service,
    "deleted": faults.node_deleted,
}


def spec_with(volume: Object) -> Object:
    """Return the job's spec with its checkpoint on `volume`."""
    aggregator = {
        "placement": "any",
        "expose": {"type": "NodePort"},
        "checkpoint": {"volume": volume},
        "podTemplate": {"spec": TEMPLATE},
    }
    return {**SPEC, "aggregator": aggregator, "workers": GROUPS}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """The matrix of the same job run on this machine."""
    return run_here(build_job(NAME, spec_with({})), tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("remedy", REMEDIES.values(), ids=REMEDIES)
def test_the_aggregators_node_is_lost_and_given_up(
    remedy: Callable[[NodeLevel, str], AbstractContextManager[None]],
    start: Callable[..., Training],
    claim: Callable[[Object], Object],
    jobs: Jobs,
    level: NodeLevel,
    reference: Matrix,
    report: Report,
    request: pytest.FixtureRequest,
) -> None:
    drive = shared_volume(level, (LOST, OTHER), f"drive-{jobs.namespace}", (jobs.namespace, CLAIM))
    training = start(spec_with(claim(drive)))
    before = training.reach(EARLY).round
    old = training.pod(Role.AGGREGATOR)
    assert node_of(old) == LOST

    since = time.monotonic()
    with faults.power_cut(level, LOST):
        told = training.told(Reason.AGGREGATOR_NODE_LOST, since)
        message = condition_of(jobs.status(NAME), Condition.DEGRADED)["message"]
        (left,) = jobs.pods(NAME, Role.AGGREGATOR)
        mended = time.monotonic()
        with remedy(level, LOST):
            again = training.recording.first(
                lambda sample: sample.round > 0, "the new aggregator's first words", since=mended, seconds=120
            )
            matrix = training.succeeds()

    assert f"node {LOST} is gone and the pod stays Terminating" in message
    assert "delete the node, or taint it node.kubernetes.io/out-of-service=nodeshutdown:NoExecute" in message
    assert left["metadata"]["uid"] == old["metadata"]["uid"], "not replaced before a person has decided"
    assert matrix == reference
    assert again.round >= before - 1
    assert [node_of(pod) for pod in jobs.pods(NAME, Role.AGGREGATOR)] == [OTHER]
    how = request.node.callspec.id
    report.add(f"aggregator's node lost, then {how}", "went on elsewhere", training, since, told, mended)
