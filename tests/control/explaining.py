"""A user at kubectl who wants to know why a job does not go: what is applied, shown and told."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engram.spec.names import API_VERSION, KIND, Label, Phase, Reason
from tests.cluster.api import Api, Object
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.fixtures import Cluster, FakeNodes
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import NotYet, until
from tests.control.operator_process import OperatorProcess, operator

NODE = "fake-cloud"
"""The node that runs the pods of `world`."""
BYSTANDER = "bystander"

WORKERS = 2
SMALL: Object = {
    "tasks": {"count": 2},
    "training": {"roundsPerTask": 1, "localSteps": 2},
    "model": {"name": "cnn"},
    "workers": [{"name": "edge", "replicas": WORKERS}],
}
"""A spec that is fine and done in seconds."""


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> Object:
    """Return `base` with `change`: mappings are merged, all else replaced."""
    found = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


def group(**fields: Any) -> list[Object]:
    """Return the worker group of `SMALL` with more fields."""
    return [{"name": "edge", "replicas": WORKERS, **fields}]


def job_of(name: str, change: Mapping[str, Any] | None = None) -> Object:
    """Return a job, `SMALL` with `change`."""
    spec = merged(SMALL, change or {})
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


def looks(operator: OperatorProcess) -> float:
    """Return how often the operator has looked at a job."""
    lines = operator.get("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("engram_operator_reconciles"))


@dataclass(frozen=True)
class User:
    """Somebody with a namespace and kubectl."""

    api: Api
    kubectl: Kubectl
    namespace: str

    def apply(self, job: Object, *flags: str) -> None:
        """Apply a job as a file."""
        self.kubectl.apply(json.dumps(job), flags=flags)

    def job(self, name: str) -> Object:
        """Return the job as it is."""
        return self.api.get(KIND, name, self.namespace)

    def status(self, name: str) -> Object:
        """Return the job's status; empty before there is one."""
        found: Object = self.job(name).get("status") or {}
        return found

    def until_told(
        self, name: str, reason: Reason, *words: str, phase: Phase | None = None, seconds: float = 45
    ) -> str:
        """Wait until the status gives `reason` with all `words`; return its message."""

        def told() -> str:
            status = self.status(name)
            message = str(status.get("message", ""))
            right = status.get("reason") == reason and all(word in message for word in words)
            if not right or (phase is not None and status.get("phase") != phase):
                raise NotYet(f"{status.get('phase')} {status.get('reason')}: {message}")
            return message

        message = until(told, f"{name}: {reason} with {words}", seconds=seconds)
        print(f"\n{name} {self.status(name)['phase']} {reason}: {message}")
        return message

    def until_phase(self, name: str, *phases: Phase, seconds: float = 45) -> Object:
        """Wait until the job is in one of `phases`; return its status."""

        def reached() -> Object:
            status = self.status(name)
            if status.get("phase") not in phases:
                raise NotYet(f"{status.get('phase')} {status.get('reason')}: {status.get('message')}")
            return status

        return until(reached, f"{name} to be {' or '.join(phases)}", seconds=seconds)

    def condition(self, name: str, kind: str) -> Object:
        """Return a condition of the job; empty when it was never said."""
        conditions = self.status(name).get("conditions") or ()
        return next((item for item in conditions if item["type"] == kind), {})

    def events(self, name: str) -> list[Object]:
        """Return the Events of the job, the oldest first."""
        uid = self.job(name)["metadata"]["uid"]
        found = [
            item for item in self.api.list("Event", self.namespace) if item["involvedObject"]["uid"] == uid
        ]
        return sorted(found, key=lambda item: int(item["metadata"]["resourceVersion"]))

    def warnings(self, name: str) -> list[str]:
        """Return the reasons of the job's Warning Events, the oldest first; each was written once."""
        found = [item for item in self.events(name) if item["type"] == "Warning"]
        assert {item.get("count", 1) for item in found} <= {1}
        return [str(item["reason"]) for item in found]

    def poke(self, name: str, operator: OperatorProcess) -> None:
        """Have the operator look at the job three times more."""
        for turn in range(3):
            before = looks(operator)
            self.kubectl.run("annotate", "--overwrite", "fij", name, f"poked={turn}-{before:g}")
            until(lambda before=before: looks(operator) > before, f"a look at {name}")  # type: ignore[misc]

    def row(self, name: str) -> dict[str, str]:
        """Return what `kubectl get fij NAME -o wide` shows, by column."""
        head, row = self.kubectl.run("get", "fij", name, "-o", "wide").splitlines()
        starts = [
            place for place in range(len(head)) if head[place] != " " and head[place - 1 : place] in ("", " ")
        ]
        ends = [*starts[1:], None]
        return {
            head[start:end].strip(): row[start:end].strip() for start, end in zip(starts, ends, strict=True)
        }

    def children(self, name: str) -> dict[str, str]:
        """Return uids of the job's children by kind and name."""
        found = {}
        for kind in ("Service", "ConfigMap", "Secret", "Job", "Pod"):
            for item in self.api.list(kind, self.namespace, labels=f"{Label.JOB}={name}"):
                found[f"{kind}/{item['metadata']['name']}"] = str(item["metadata"]["uid"])
        return found

    def pods(self, name: str, role: str = "") -> list[Object]:
        """Return the job's pods that are not being deleted."""
        labels = f"{Label.JOB}={name}" + (f",{Label.ROLE}={role}" if role else "")
        pods = self.api.list("Pod", self.namespace, labels=labels)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


@dataclass(frozen=True)
class World:
    """A namespace with a healthy job, and the operator that serves it."""

    user: User
    operator: OperatorProcess
    healthy: dict[str, str]
    """Children of the healthy job."""


def new_namespace(api: Api, **labels: str) -> str:
    """Make a namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": {f"pod-security.kubernetes.io/{k}": v for k, v in labels.items()}}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    until(lambda: api.list("ServiceAccount", name), f"the service account of {name}")
    return name


@pytest.fixture(scope="module")
def cloud(api: Api) -> Iterator[FakeNodes]:
    """A fake node that runs every pod."""
    nodes = FakeNodes(api)
    with FakeKubelet(api):
        nodes(NODE)
        yield nodes
    nodes.remove()


@pytest.fixture(scope="module")
def world(
    control_plane: Cluster, crd: str, cloud: FakeNodes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The namespace of most cases."""
    api = control_plane.api
    name = new_namespace(api)
    user = User(api, control_plane.kubectl.inside(name), name)
    log = tmp_path_factory.mktemp("explained") / "operator.log"
    with operator(control_plane.kubeconfig, log, "--namespace", name, "--objects-seconds", "0") as process:
        user.apply(job_of(BYSTANDER))
        user.until_phase(BYSTANDER, Phase.RUNNING)
        yield World(user, process, user.children(BYSTANDER))
    assert "Traceback" not in log.read_text()
    api.delete("Namespace", name)


@pytest.fixture
def user(world: World) -> Iterator[User]:
    """Somebody whose mistakes harm no other job."""
    yield world.user
    assert world.user.children(BYSTANDER) == world.healthy
    assert world.user.status(BYSTANDER)["reason"] == Reason.TRAINING
    for job in world.user.kubectl.list("fij"):
        if job["metadata"]["name"] != BYSTANDER:
            world.user.kubectl.delete("fij", job["metadata"]["name"])


@contextmanager
def serving(cluster: Cluster, folder: Path, namespace: str) -> Iterator[tuple[User, OperatorProcess]]:
    """Run an operator for one namespace."""
    user = User(cluster.api, cluster.kubectl.inside(namespace), namespace)
    arguments = ("--namespace", namespace, "--objects-seconds", "0")
    with operator(cluster.kubeconfig, folder / "operator.log", *arguments) as process:
        yield user, process
