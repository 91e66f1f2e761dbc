"""The job that faults happen to, and the faults that are no business of the nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from engram.spec.names import MAIN_CONTAINER, Label, Role
from engram_operator.settings import PREFIX
from tests.cluster.api import Api, Object
from tests.cluster.containerd import ctr
from tests.cluster.kubectl import Kubectl
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.jobs import OPERATOR, Jobs, node_of
from tests.e2e.training import CLOUD

NAME = "digits"
MEMORY = "400Mi"
"""Twice what a worker of this job needs."""
OPERATOR_LABEL = f"app.kubernetes.io/name={OPERATOR}"
EAT = """
with open("/proc/1/oom_score_adj", "w") as file:
    file.write("1000")
taken = []
while True:
    taken.append(b"x" * (1 << 20))
"""
"""Fills the memory of a container from a second process in it; the kernel kills the first one."""


def pinned(name: str, node: str) -> Object:
    """Return a group of one worker on one edge node."""
    template = {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}
    return {"name": name, "replicas": 1, "placement": "edge", "podTemplate": template}


SPEC: Object = {
    "seed": 3,
    "dataset": {"name": "digits", "partition": {"method": "dirichlet", "alpha": 1.0}},
    "tasks": {"count": 5, "classesPerTask": 2},
    "model": {"name": "cnn"},
    "training": {
        "roundsPerTask": 60,
        "localSteps": 2,
        "batchSize": 8,
        "gradientClip": 1,
        "optimizer": {"name": "sgd", "learningRate": 0.05},
    },
    "algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": 20}},
    "aggregator": {"placement": "cloud", "expose": {"type": "NodePort"}},
    "runPolicy": {"cleanPodPolicy": "None"},
    "workers": [
        {
            "name": "cloud",
            "replicas": 1,
            "placement": "cloud",
            "resources": {"limits": {"cpu": "200m"}},
        },
        {
            "name": "edge",
            "replicas": 1,
            "placement": "edge",
            "resources": {"limits": {"memory": MEMORY}},
        },
        pinned("east", "edge1"),
        pinned("west", "edge2"),
    ],
}
"""300 rounds, one worker in the cloud and three at the edge. The one in the cloud has a fifth of a processor,
which makes every round wait for it: so the run lasts half a minute on a fast machine, too."""


def with_checkpoint(volume: Object, spec: Object = SPEC) -> Object:
    """Return the job's spec with its checkpoint on `volume`."""
    return {**spec, "aggregator": {**spec["aggregator"], "checkpoint": {"volume": volume}}}


def with_quorum(quorum: str, deadline_seconds: int) -> Object:
    """Return the job's spec with another quorum, and a deadline of its rounds."""
    return {**SPEC, "aggregation": {"quorum": quorum, "roundDeadlineSeconds": deadline_seconds}}


def passed(moment: float) -> None:
    """Wait until a point in time: a fault that lasts a minute is one of the tests' inputs."""
    left = moment - time.monotonic()
    until(lambda: time.monotonic() >= moment, "the end of the fault", seconds=max(left, 0.0) + 60)


def ended_with(pod: Object) -> int | None:
    """Return the exit code of the main container, None while it runs."""
    for container in pod["status"].get("containerStatuses") or ():
        if container["name"] == MAIN_CONTAINER and "terminated" in container["state"]:
            return int(container["state"]["terminated"]["exitCode"])
    return None


def end_with(jobs: Jobs, group: str, codes: list[int]) -> None:
    """Wait until the pods of a group have ended, with these exit codes in their order."""

    def ended() -> bool:
        pods = jobs.pods(NAME, Role.WORKER, group)
        found = [
            ended_with(pod) for pod in sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])
        ]
        if found != codes:
            raise NotYet(f"they are {found}")
        return True

    until(ended, f"exit codes {codes} of group {group}")


def elsewhere(jobs: Jobs, node: str) -> bool:
    """Tell whether the worker that may run anywhere at the edge runs on another node now."""
    found = jobs.pods(NAME, Role.WORKER, "edge")
    if not any(pod["status"]["phase"] == "Running" and node_of(pod) != node for pod in found):
        raise NotYet(str([(node_of(pod), pod["status"]["phase"]) for pod in found]))
    return True


@contextmanager
def kept(api: Api, pod: Object) -> Iterator[None]:
    """Keep a pod that is deleted until the end of the block, so that its end can be read."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    mine = "engram.dev/test"
    others = pod["metadata"].get("finalizers") or []
    api.patch("Pod", name, {"metadata": {"finalizers": [*others, mine]}}, namespace=namespace)
    try:
        yield
    finally:
        left = api.get("Pod", name, namespace)["metadata"].get("finalizers") or []
        rest = [item for item in left if item != mine]
        api.patch("Pod", name, {"metadata": {"finalizers": rest}}, namespace=namespace)


def kill_operator(level: NodeLevel, deployment: Kubectl, *, at_work: bool) -> None:
    """SIGKILL the operator as soon as it runs, or `at_work`; its next pod comes at once.

    The pod is deleted, too: Kubernetes would wait longer and longer before it starts its container again.
    """

    def running() -> tuple[str, str]:
        for pod in deployment.list("pods", OPERATOR_LABEL):
            for container in pod["status"].get("containerStatuses") or ():
                if "running" in container["state"] and (container["ready"] or not at_work):
                    return pod["metadata"]["name"], container["containerID"].partition("://")[2]
        raise NotYet("its container does not run")

    name, container = until(running, "an operator to kill", seconds=60)
    ctr(level.nodes[CLOUD], "tasks", "kill", "--signal=SIGKILL", container)
    deployment.run("delete", "pod", name, "--grace-period=0", "--force")


@contextmanager
def default_image(deployment: Kubectl, image: str) -> Iterator[None]:
    """Roll out an operator with another default image; the one before comes back at the end."""
    variable = f"{PREFIX}IMAGE"
    main = deployment.get("deployment", OPERATOR)["spec"]["template"]["spec"]["containers"][0]
    before = next(item["value"] for item in main["env"] if item["name"] == variable)
    rollout = ("rollout", "status", f"deployment/{OPERATOR}", "--timeout=90s")
    try:
        deployment.run("set", "env", f"deployment/{OPERATOR}", f"{variable}={image}")
        deployment.run(*rollout, seconds=100)
        yield
    finally:
        deployment.run("set", "env", f"deployment/{OPERATOR}", f"{variable}={before}")
        deployment.run(*rollout, seconds=100)


def generations_of(api: Api, jobs: Jobs) -> dict[str, int]:
    """Return how often the specs of the batch Jobs were changed."""
    found = api.list("Job", jobs.namespace, f"{Label.ROLE}!={Role.REPORT}")
    return {item["metadata"]["name"]: item["metadata"]["generation"] for item in found}
