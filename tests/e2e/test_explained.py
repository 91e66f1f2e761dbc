"""Faults that only a kubelet and real containers can show: what a user reads, and what mends it.

The operator runs on this machine, the pods on real nodes; what the control plane alone can show is in
tests/control/test_explained.py. Jobs are small, and go before the next one comes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engram import __version__
from engram.spec.names import FEDERATION_PORT, Phase, Reason, Role
from tests.cluster.api import Object
from tests.cluster.fixtures import Cluster
from tests.cluster.images import PROBE_IMAGE
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.control.explaining import User, group, job_of
from tests.control.operator_process import operator

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(300)]

CLOUD = "cloud"
PHOTOS = "srv/photos"
OLDER = "0.0.9"
AS_OLDER = (
    f"import sys, engram; engram.__version__ = {OLDER!r}; sys.argv = ['engram', 'worker']; "
    "from engram.__main__ import main; main()"
)
"""Starts a worker that is of another version before anything has asked for it."""


@pytest.fixture(scope="module")
def world(
    control_plane: Cluster, crd: str, level: NodeLevel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[User]:
    """A namespace, and an operator for it."""
    name = "explained"
    api = control_plane.api
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until(lambda: api.list("ServiceAccount", name), f"the service account of {name}")
    log = tmp_path_factory.mktemp("explained") / "operator.log"
    with operator(control_plane.kubeconfig, log, "--namespace", name):
        yield User(api, control_plane.kubectl.inside(name), name)
    assert "Traceback" not in log.read_text()
    control_plane.kubectl.delete("namespace", name)


@pytest.fixture
def user(world: User) -> Iterator[User]:
    """Somebody whose jobs are gone when the next test begins."""
    yield world
    world.kubectl.run("delete", "fij", "--all")

    def gone() -> bool:
        left = world.api.list("Pod", world.namespace)
        if left:
            raise NotYet(", ".join(pod["metadata"]["name"] for pod in left))
        return True

    until(gone, "all pods to go", seconds=90)


def in_main(**fields: Any) -> Object:
    """Return a podTemplate that changes the container main."""
    return {"spec": {"containers": [{"name": "main", **fields}]}}


@dataclass(frozen=True)
class Case:
    """Something wrong: the change of the job, what status says of it, and what makes the job go on."""

    change: Object
    reason: Reason
    words: tuple[str, ...]
    phase: Phase | None = Phase.STARTING
    mend: Callable[[User, NodeLevel], None] | None = None


def _make_config_map(user: User, level: NodeLevel) -> None:
    user.kubectl.run("create", "configmap", "photos", "--from-literal=a=b")


def _make_secret(user: User, level: NodeLevel) -> None:
    user.kubectl.run("create", "secret", "generic", "registry", "--from-literal=user=anna")


def _make_folder(user: User, level: NodeLevel) -> None:
    for node in level.nodes.values():
        (node.root / PHOTOS).mkdir(parents=True)


FOLDERS: Object = {"tasks": {"count": 2, "classesPerTask": 1}}
ANEW = "delete the job and apply it anew"
CASES: dict[str, Case] = {
    "no-registry": Case(
        {"workers": group(image="localhost:1/engram-runtime:9")},
        Reason.IMAGE_PULL_FAILED,
        (
            '"localhost:1/engram-runtime:9"',
            "connection refused",
            "mend the registry",
            f"{ANEW} with another image",
        ),
    ),
    "no-image-name": Case(
        {"workers": group(image="Engram Runtime")},
        Reason.IMAGE_PULL_FAILED,
        (
            'InvalidImageName: Failed to apply default image tag "Engram Runtime"',
            "written as REGISTRY/NAME:TAG",
        ),
    ),
    "no-config-map": Case(
        {"dataset": {"volume": {"configMap": {"name": "photos"}}}},
        Reason.MOUNT_FAILED,
        ("aggregator: a volume cannot be mounted", 'configmap "photos" not found', "make what it names"),
        mend=_make_config_map,
    ),
    "no-folder": Case(
        {"dataset": {"volume": {"hostPath": {"path": f"/{PHOTOS}", "type": "Directory"}}}},
        Reason.MOUNT_FAILED,
        (
            f"on node {CLOUD}",
            f"/{PHOTOS} is not a directory",
            "make what it names",
            f"{ANEW} with another volume",
        ),
        mend=_make_folder,
    ),
    "no-secret": Case(
        {
            "workers": group(
                podTemplate=in_main(
                    env=[{"name": "U", "valueFrom": {"secretKeyRef": {"name": "registry", "key": "user"}}}]
                )
            )
        },
        Reason.CONTAINER_NOT_CREATED,
        ("trainworker-edge-0", 'secret "registry" not found', "make the object that it names"),
        mend=_make_secret,
    ),
    "no-data": Case(
        {**FOLDERS, "dataset": {"name": "image-folder", "volume": {"emptyDir": {}}}},
        Reason.DATA_ERROR,
        (
            "spec.dataset: /data/train: no class folders",
            "of spec.dataset.volume, is empty: put the data there",
            ANEW,
        ),
        phase=Phase.FAILED,
    ),
    "image-without-engram": Case(
        {"workers": group(image=PROBE_IMAGE)},
        Reason.IMAGE_UNUSABLE,
        ("trainworker-edge-", "the image has no command engram", "in spec.workers[].image"),
    ),
    "engram-not-on-path": Case(
        {"workers": group(podTemplate=in_main(env=[{"name": "PATH", "value": "/usr/bin"}]))},
        Reason.IMAGE_UNUSABLE,
        ("trainworker-edge-", "the image has no command engram", "the runtime image, or one built on it"),
    ),
    "aggregator-without-engram": Case(
        {"aggregator": {"image": PROBE_IMAGE}, "runPolicy": {"backoffLimit": 0}},
        Reason.BACKOFF_LIMIT_EXCEEDED,
        ("the last time: the image has no command engram", "in spec.aggregator.image"),
        phase=Phase.FAILED,
    ),
    "another-version": Case(
        {"workers": group(podTemplate=in_main(command=["python", "-c", AS_OLDER]))},
        Reason.WORKER_REFUSED,
        (
            f"runs engram {OLDER} (protocol",
            f"the aggregator engram {__version__}",
            "give spec.aggregator.image and spec.workers[].image the same version",
        ),
        phase=None,
    ),
    "no-module": Case(
        {"algorithm": {"name": "photos.algorithms:Mine"}},
        Reason.CONFIGURATION_ERROR,
        (
            "spec.algorithm.name: photos.algorithms:Mine does not import",
            "No module named 'photos'",
            "python -c 'import photos.algorithms'",
            ANEW,
        ),
        phase=Phase.FAILED,
    ),
    "too-little-memory": Case(
        {"workers": group(resources={"limits": {"memory": "64Mi"}})},
        Reason.OUT_OF_MEMORY,
        ("killed for memory (limit 64Mi)", "spec.workers[].resources.limits.memory", "training.batchSize"),
        phase=None,
    ),
    "edge-without-exposure": Case(
        {"workers": group(placement="edge")},
        Reason.AGGREGATOR_UNREACHABLE,
        ("trainworker-edge-", "on node edge", "has not reached the aggregator at", "spec.aggregator.expose"),
        phase=None,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_status_says(
    user: User, level: NodeLevel, case: Case, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = request.node.callspec.id
    user.apply(job_of(name, case.change))

    user.until_told(name, case.reason, *case.words, phase=case.phase, seconds=150)

    assert user.row(name)["REASON"] == case.reason
    assert user.warnings(name).count(case.reason) == 1
    if case.mend is not None:
        try:
            case.mend(user, level)
            user.until_phase(name, Phase.SUCCEEDED, seconds=240)
        finally:
            for node in level.nodes.values():
                shutil.rmtree(node.root / PHOTOS, ignore_errors=True)


def test_a_port_that_a_process_of_the_node_holds(user: User) -> None:
    listener: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "listener", "namespace": user.namespace},
        "spec": {
            "nodeName": CLOUD,
            "hostNetwork": True,
            "containers": [{"name": "main", "image": PROBE_IMAGE, "args": ["serve", f":{FEDERATION_PORT}"]}],
        },
    }
    user.api.create(listener)
    until(
        lambda: user.api.get("Pod", "listener", user.namespace)["status"]["phase"] == "Running",
        "the listener to run",
    )
    try:
        change: Object = {
            "aggregator": {
                "expose": {"type": "HostPort"},
                "nodeName": CLOUD,
                "podTemplate": {"spec": {"hostNetwork": True}},
            }
        }
        user.apply(job_of("port", change))
        user.until_told(
            "port",
            Reason.PORT_TAKEN,
            f"port {FEDERATION_PORT} of 0.0.0.0 is taken: end what listens there",
            f"any process of node {CLOUD} may hold it",
            phase=Phase.FAILED,
            seconds=120,
        )
    finally:
        user.api.delete("Pod", "listener", user.namespace, now=True)


def test_a_job_without_a_fault_succeeds_here(user: User) -> None:
    user.apply(job_of("fine"))
    status = user.until_phase("fine", Phase.SUCCEEDED, seconds=200)
    assert status["reason"] == Reason.FINISHED
    assert user.warnings("fine") == []
    assert len(user.pods("fine", Role.WORKER)) == 2
