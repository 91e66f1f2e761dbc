"""Jobs on real nodes as users handle them: kubectl for what they type, the API for what is asked often."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from engram.spec.names import API_VERSION, KIND, Condition, Label, Phase, Reason, Role
from engram.spec.summary import FinalSummary
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.kubectl import Kubectl
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until

ENDS_WITHIN = 240.0
"""Seconds within which a short run must end: starting costs half a minute where the machine is busy."""
SYSTEM, OPERATOR = "engram-system", "engram-operator"
"""Namespace and Deployment of `deploy/`."""
RESOURCE = "fij"
"""Short name of the jobs' resource."""

Matrix = list[list[float | None]]


def build_job(name: str, spec: Mapping[str, Any]) -> Object:
    """Return a job."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": dict(spec)}


class Jobs:
    """The jobs of one namespace, and waiting for them."""

    def __init__(self, api: Api, kubectl: Kubectl) -> None:
        """`kubectl` is one that works in the namespace."""
        self.api, self.kubectl, self.namespace = api, kubectl, kubectl.namespace

    def apply(self, *what: Path | Object) -> None:
        """`kubectl apply` files or objects."""
        self.kubectl.apply(*(item if isinstance(item, Path) else yaml.safe_dump(item) for item in what))

    def change(self, name: str, spec: Mapping[str, Any]) -> None:
        """`kubectl patch` the spec of a job."""
        self.kubectl.run("patch", RESOURCE, name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def status(self, name: str) -> Object:
        """Return a job's status, empty before the operator's first word."""
        found: Object = self.api.get(KIND, name, self.namespace).get("status") or {}
        return found

    def reach(
        self, name: str, condition: Callable[[Object], bool], what: str, seconds: float = ENDS_WITHIN
    ) -> Object:
        """Wait until the status of a job that has not failed meets `condition`; return the status."""

        def reached() -> Object:
            status = self.status(name)
            if condition(status):
                return status
            if status.get("phase") in (Phase.SUCCEEDED, Phase.FAILED):
                raise AssertionError(f"job {name} ended before {what}: {status['message']}")
            raise NotYet(f"{status.get('phase')}, {status.get('display')}: {status.get('message')}")

        return until(reached, f"{what} of job {name}", seconds=seconds, every=0.2)

    def in_phase(self, name: str, phase: Phase, seconds: float = ENDS_WITHIN) -> Object:
        """Wait until a job is in a phase; return the status."""
        return self.reach(name, lambda status: status.get("phase") == phase, f"phase {phase}", seconds)

    def in_round(self, name: str, number: int) -> Object:
        """Wait until round `number` of a job is under way or closed; return the status."""
        return self.reach(
            name, lambda status: status.get("progress", {}).get("round", 0) >= number, f"round {number}"
        )

    def matrix(self, name: str) -> Matrix:
        """Return the accuracy matrix that the aggregator left in its pod's termination message."""
        for pod in self.pods(name, Role.AGGREGATOR):
            for container in pod["status"].get("containerStatuses") or ():
                words = (container["state"].get("terminated") or {}).get("message", "")
                summary = FinalSummary.decode(words)
                if summary is not None and summary.outcome == "complete" and summary.matrix is not None:
                    return summary.matrix
        raise AssertionError(f"no aggregator's pod of {name} holds a complete summary with its matrix")

    def report(self, name: str) -> dict[str, str]:
        """Return the files of the report in the job's ConfigMap; fails unless status says it is there."""
        said = self.status(name)
        assert condition_of(said, Condition.REPORT_READY)["reason"] == Reason.REPORT_STORED, said
        found: dict[str, str] = self.api.get("ConfigMap", said["report"]["configMap"], self.namespace)["data"]
        return found

    def pods(self, name: str, role: Role | None = None, group: str = "") -> list[Object]:
        """Return a job's pods: all, those of a role, those of a worker group."""
        labels = {Label.JOB: name, Label.ROLE: role, Label.GROUP: group}
        return self.api.list(
            "Pod", self.namespace, ",".join(f"{key}={value}" for key, value in labels.items() if value)
        )

    def pods_gone(self, name: str) -> None:
        """Wait until a job has no pods."""

        def gone() -> bool:
            left = [pod["metadata"]["name"] for pod in self.pods(name)]
            if left:
                raise NotYet(f"there are still {', '.join(left)}")
            return True

        until(gone, f"the end of the pods of job {name}", seconds=90, every=0.2)

    def nothing_left(self, name: str, kinds: Sequence[str], seconds: float = 90) -> None:
        """Wait until nothing of these kinds is left of a job, nor the job itself."""

        def gone() -> bool:
            left = [
                f"{kind} {item['metadata']['name']}"
                for kind in kinds
                for item in self.api.list(kind, self.namespace, f"{Label.JOB}={name}")
            ]
            if self.exists(name):
                left.append("the job itself")
            if left:
                raise NotYet(f"there are still {', '.join(left)}")
            return True

        until(gone, f"the end of everything of job {name}", seconds=seconds, every=0.2)

    def exists(self, name: str) -> bool:
        """Tell whether there is such a job."""
        try:
            self.api.get(KIND, name, self.namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        return True

    def events(self, name: str) -> list[Object]:
        """Return the Events of a job in the order in which they happened."""
        found = [
            item
            for item in self.api.list("Event", self.namespace)
            if (item["involvedObject"]["kind"], item["involvedObject"]["name"]) == (KIND, name)
        ]
        return sorted(found, key=lambda item: item["metadata"]["creationTimestamp"])

    @contextmanager
    def watched(self, file: Path) -> Iterator[Table]:
        """Run `kubectl get fij --watch` meanwhile, its output in `file`."""
        command: list[str | Path] = [
            self.kubectl.program,
            f"--kubeconfig={self.kubectl.kubeconfig}",
            f"--namespace={self.namespace}",
            *("get", RESOURCE, "--watch"),
        ]
        with file.open("w", encoding="utf-8") as output, subprocess.Popen(command, stdout=output) as process:
            try:
                yield Table(file)
            finally:
                process.terminate()


class Table:
    """What `kubectl get fij --watch` has printed so far."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def lines(self) -> list[str]:
        """The lines below the header."""
        return self._file.read_text(encoding="utf-8").splitlines()[1:]

    def phases(self) -> list[str]:
        """Return the phases that were shown, each as often as it began; a new job has none yet."""
        shown = (line.split()[1] for line in self.lines)
        return [phase for phase, _ in groupby(shown) if phase in set(Phase)]

    def counts(self, total: int) -> list[int]:
        """Return the different numbers that were shown as `number/total`, in their order."""
        found = (re.search(rf" (\d+)/{total} ", line) for line in self.lines)
        return [number for number, _ in groupby(int(match[1]) for match in found if match)]


def condition_of(status: Object, kind: Condition) -> Object:
    """Return a condition of a job's status, empty if absent."""
    return next((item for item in status.get("conditions") or () if item["type"] == kind), {})


def node_of(pod: Object) -> str:
    """Return the node that a pod was placed on."""
    return str(pod["spec"].get("nodeName", ""))


def local_volume(level: NodeLevel, node: str, name: str, claim: tuple[str, str]) -> tuple[Object, Path]:
    """Return a `local` PersistentVolume for the claim (namespace, name), and its folder on this machine.

    It lies in /srv of the node, which is the node's own, and is writable for the pods' group.
    """
    folder = level.nodes[node].root / "srv" / name
    folder.mkdir(parents=True, exist_ok=True)
    return _volume(name, Path("/srv", name), [node], claim), folder


def shared_volume(level: NodeLevel, nodes: Sequence[str], name: str, claim: tuple[str, str]) -> Object:
    """Return a PersistentVolume for the claim (namespace, name) that all of `nodes` reach: a network drive.

    It lies in a folder of this machine, which all nodes see where it is.
    """
    folder = level.directory.data / name
    folder.mkdir(parents=True, exist_ok=True)
    return _volume(name, folder, nodes, claim)


def _volume(name: str, path: Path, nodes: Sequence[str], claim: tuple[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "claimRef": {"namespace": claim[0], "name": claim[1]},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
                            ]
                        }
                    ]
                }
            },
        },
    }
