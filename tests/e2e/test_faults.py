"""What goes wrong in the field, done to real nodes under a training run: it ends as if nothing had happened.

"As if nothing": Succeeded, and the accuracy matrix of `engram run` of the same job on this machine, bit for
bit. Recovery times go into the file that ENGRAM_FAULTS_JSON names, which `benchmarks/faults.py` sets.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from engram.spec.exit_codes import ExitCode
from engram.spec.names import MAIN_CONTAINER, Label, Phase, Reason, Role
from engram_operator.settings import PREFIX
from tests.cluster import faults
from tests.cluster.api import Api, Object
from tests.cluster.containerd import ctr
from tests.cluster.fixtures import Cluster
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.conftest import OPERATOR, SYSTEM
from tests.e2e.jobs import Jobs, Matrix, build_job, local_volume, node_of
from tests.e2e.reference import run_here
from tests.e2e.training import CLOUD, ENDS_WITHIN, Training

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

RESULTS_VARIABLE = "ENGRAM_FAULTS_JSON"
"""File for the recovery times."""
NAME = "digits"
CLAIM = "checkpoint"
MEMORY = "400Mi"
"""Twice what a worker of this job needs."""
MINUTE = 60.0
EARLY = 20
"""The round of 300 in which faults happen."""
OPERATOR_LABEL = f"app.kubernetes.io/name={OPERATOR}"
KILLS = 10
OTHER_IMAGE = "engram-runtime:0.0.0-other"
"""There is no such image: a pod that were made with it would not start."""
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


@dataclass
class Row:
    """One fault as it was measured."""

    fault: str
    reason: Reason | None
    """What the status says meanwhile; None: nothing is wrong."""
    told_seconds: float | None
    """From the fault until the status said so."""
    next_round_seconds: float
    """From the fault until rounds closed again, after the longest time without one."""
    mended_seconds: float | None
    """From the fault until somebody had mended the cause, the node was Ready again; None: nobody had to."""
    outcome: str


@dataclass
class Report:
    """The rows of this session."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        fault: str,
        training: Training,
        since: float,
        *,
        reason: Reason | None = None,
        told: float | None = None,
        mended: float | None = None,
        outcome: str = "",
    ) -> None:
        """Add what `training` has gone through, once it has succeeded with the same matrix.

        `since` and `mended` are points in time, `told` is seconds.
        """
        _, again = training.standstill(since)
        lasted = None if mended is None else mended - since
        words = ", ".join(filter(None, ("Succeeded", outcome, "same matrix")))
        self.rows.append(Row(fault, reason, told, again - since, lasted, words))

    def write(self, path: Path) -> None:
        """Write the rows as JSON."""
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            row.update({key: round(value, 1) for key, value in row.items() if isinstance(value, float)})
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    """Collect what was measured; write it where the benchmark wants it."""
    found = Report()
    yield found
    path = os.environ.get(RESULTS_VARIABLE)
    if path:
        found.write(Path(path))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """The matrix of the same job run on this machine."""
    return run_here(build_job(NAME, SPEC), tmp_path_factory.mktemp("reference"))


@pytest.fixture
def start(jobs: Jobs, level: NodeLevel) -> Iterator[Callable[..., Training]]:
    """Start the job, watched: `start()`, or `start(checkpoint)` with the checkpoint on a volume."""
    running: list[Training] = []

    def starting(checkpoint: Object | None = None) -> Training:
        spec = SPEC if checkpoint is None else with_checkpoint(checkpoint)
        running.append(Training(jobs, level, build_job(NAME, spec)))
        return running[-1]

    yield starting
    for training in running:
        training.close()


@pytest.fixture
def checkpoint(api: Api, jobs: Jobs, level: NodeLevel) -> Iterator[Object]:
    """A claim for the checkpoint, bound to a folder of the cloud's node: a volume source for the job."""
    volume, _ = local_volume(level, CLOUD, f"checkpoint-{jobs.namespace}", (jobs.namespace, CLAIM))
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    jobs.apply(volume)
    jobs.apply(claim)
    yield {"persistentVolumeClaim": {"claimName": CLAIM}}
    api.delete("PersistentVolume", volume["metadata"]["name"])


@pytest.fixture
def deployment(control_plane: Cluster, operator: str) -> Kubectl:
    """kubectl in the operator's namespace."""
    return control_plane.kubectl.inside(SYSTEM)


def with_checkpoint(volume: Object) -> Object:
    """Return the job's spec with its checkpoint on `volume`."""
    return {**SPEC, "aggregator": {**SPEC["aggregator"], "checkpoint": {"volume": volume}}}


# The aggregator.


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "empty-dir"])
def test_the_aggregators_pod_is_deleted(
    durable: bool,
    start: Callable[..., Training],
    request: pytest.FixtureRequest,
    api: Api,
    reference: Matrix,
    report: Report,
) -> None:
    training = start(request.getfixturevalue("checkpoint") if durable else None)
    before = training.reach(EARLY).round
    pods = training.uids()
    old = training.pod(Role.AGGREGATOR)["metadata"]

    since = time.monotonic()
    api.delete("Pod", old["name"], old["namespace"])
    told = training.told(Reason.AGGREGATOR_RESTARTING, since)
    again = training.recording.first(
        lambda sample: sample.round > 0, "the new aggregator's first round", since=since + told
    )

    assert training.succeeds() == reference
    assert again.round >= before if durable else again.round < before
    assert pods - training.uids() == {old["uid"]}
    where = "at its round" if durable else "from round 1"
    report.add(
        f"aggregator's pod deleted, checkpoint {'on a volume' if durable else 'in an emptyDir'}",
        training,
        since,
        reason=Reason.AGGREGATOR_RESTARTING,
        told=told,
        outcome=f"went on {where}",
    )


def test_a_run_is_suspended_for_a_minute_and_resumed(
    start: Callable[..., Training], checkpoint: Object, jobs: Jobs, reference: Matrix, report: Report
) -> None:
    training = start(checkpoint)
    before = training.reach(EARLY).round

    since = time.monotonic()
    jobs.change(NAME, {"suspend": True})
    rests = training.recording.first(
        lambda sample: sample.phase == Phase.SUSPENDED, "phase Suspended", since=since
    )
    jobs.pods_gone(NAME)
    passed(since + MINUTE)
    jobs.change(NAME, {"suspend": False})
    mended = time.monotonic()
    again = training.recording.first(lambda sample: sample.round > 0, "the first round", since=mended)

    assert training.succeeds() == reference
    assert again.round >= before
    told = rests.at - since
    report.add(
        "suspended for 60 s, resumed",
        training,
        since,
        reason=Reason.SUSPENDED,
        told=told,
        mended=mended,
        outcome="went on at its round",
    )


# A worker.


def test_a_worker_is_killed_for_memory_once(
    start: Callable[..., Training], kubectl: Kubectl, jobs: Jobs, reference: Matrix, report: Report
) -> None:
    training = start()
    training.reach(EARLY)
    victim = training.pod(Role.WORKER, "edge")["metadata"]

    since = time.monotonic()
    with pytest.raises(KubectlError, match="137"):
        kubectl.run("exec", victim["name"], "--", "python3", "-c", EAT)
    told = training.told(Reason.OUT_OF_MEMORY, since)

    assert training.succeeds() == reference
    said = [
        item["message"]
        for sample in training.recording.samples
        for item in sample.status.get("workerStatuses") or ()
        if item.get("reason") == Reason.OUT_OF_MEMORY
    ]
    assert f"limit {MEMORY}" in said[0]
    assert [ended_with(pod) for pod in in_order(jobs.pods(NAME, Role.WORKER, "edge"))] == [137, 0]
    report.add("worker killed for memory", training, since, reason=Reason.OUT_OF_MEMORY, told=told)


def test_a_workers_node_is_drained(
    start: Callable[..., Training],
    level: NodeLevel,
    api: Api,
    jobs: Jobs,
    reference: Matrix,
    report: Report,
) -> None:
    training = start()
    training.reach(EARLY)
    victim = training.pod(Role.WORKER, "edge")
    node = node_of(victim)

    with kept(api, victim):
        since = time.monotonic()
        with faults.drained(level, node):
            told = training.told(Reason.POD_EVICTED, since)
            until(lambda: elsewhere(jobs, node), f"another pod for the one of {node}", seconds=90)
        mended = time.monotonic()
        code = ended_with(api.get("Pod", victim["metadata"]["name"], jobs.namespace))

    assert code == ExitCode.RETRY
    assert training.succeeds() == reference
    report.add(
        "worker's node drained",
        training,
        since,
        reason=Reason.POD_EVICTED,
        told=told,
        mended=mended,
        outcome="index came back on another node",
    )


# A node at the edge.


def test_the_kubelet_of_an_edge_node_is_killed_and_restarted(
    start: Callable[..., Training], level: NodeLevel, reference: Matrix, report: Report
) -> None:
    training = start()
    training.reach(EARLY)
    pods = training.uids()

    since = time.monotonic()
    with faults.kubelet_killed(level, "edge1"):
        told = training.told(Reason.NODE_OFFLINE, since)
        assert training.recording.closed(since), "training goes on without kubelet"
    mended = time.monotonic()

    assert training.succeeds() == reference
    assert training.uids() == pods
    report.add(
        "kubelet of an edge node killed and restarted",
        training,
        since,
        reason=Reason.NODE_OFFLINE,
        told=told,
        mended=mended,
        outcome="no round was lost",
    )


def test_the_cable_of_an_edge_node_is_cut_for_a_minute(
    start: Callable[..., Training], level: NodeLevel, reference: Matrix, report: Report
) -> None:
    training = start()
    training.reach(EARLY)
    pods = training.uids()

    since = time.monotonic()
    with faults.cable_cut(level, "edge2"):
        told = training.told(Reason.NODE_OFFLINE, since)
        training.recording.first(
            lambda sample: sample.status["workers"].get("disconnected") == 1,
            "a disconnected worker",
            since=since,
        )
        training.told(Reason.QUORUM_NOT_REACHED, since)
        passed(since + MINUTE)
    mended = time.monotonic()
    training.well(mended)

    assert training.succeeds() == reference
    assert training.uids() == pods
    report.add(
        "cable of an edge node cut for 60 s",
        training,
        since,
        reason=Reason.NODE_OFFLINE,
        told=told,
        mended=mended,
        outcome="same pods, the round waited",
    )


def test_the_power_of_an_edge_node_is_cut_and_returns(
    start: Callable[..., Training], level: NodeLevel, jobs: Jobs, reference: Matrix, report: Report
) -> None:
    training = start()
    training.reach(EARLY)
    pods = training.uids()

    since = time.monotonic()
    with faults.power_cut(level, "edge1"):
        told = training.told(Reason.NODE_OFFLINE, since)
        assert training.uids() == pods, "nobody is replaced while its node may come back"
    mended = time.monotonic()
    training.well(mended)

    assert training.succeeds() == reference
    assert [ended_with(pod) for pod in in_order(jobs.pods(NAME, Role.WORKER, "east"))] == [255, 0]
    report.add(
        "power of an edge node cut, back at once when noticed",
        training,
        since,
        reason=Reason.NODE_OFFLINE,
        told=told,
        mended=mended,
        outcome="its workers came back",
    )


# Who looks after it.


def test_the_operator_is_killed_ten_times(
    start: Callable[..., Training],
    level: NodeLevel,
    deployment: Kubectl,
    jobs: Jobs,
    reference: Matrix,
    report: Report,
) -> None:
    since = time.monotonic()
    training = start()
    for number in range(KILLS):
        kill_operator(level, deployment, at_work=number % 2 == 1)
    deployment.run("rollout", "status", f"deployment/{OPERATOR}", "--timeout=60s", seconds=70)

    assert training.succeeds() == reference
    assert sorted(pod["metadata"]["labels"][Label.ROLE] for pod in jobs.pods(NAME)) == [
        Role.AGGREGATOR,
        *[Role.WORKER] * 4,
    ]
    report.add("operator killed ten times from the start on", training, since, outcome="every pod once")


def test_the_operator_is_upgraded_to_another_default_image(
    start: Callable[..., Training],
    deployment: Kubectl,
    jobs: Jobs,
    api: Api,
    reference: Matrix,
    report: Report,
) -> None:
    training = start()
    training.reach(EARLY)
    pods, generations = training.uids(), generations_of(api, jobs)

    since = time.monotonic()
    with default_image(deployment, OTHER_IMAGE):
        training.recording.first(
            lambda sample: sample.phase == Phase.SUCCEEDED, "the end", seconds=ENDS_WITHIN
        )
        assert generations_of(api, jobs) == generations

    assert training.succeeds() == reference
    assert training.uids() == pods
    report.add("operator upgraded to another default image", training, since, outcome="nothing restarted")


def test_the_api_server_is_restarted(
    start: Callable[..., Training], level: NodeLevel, reference: Matrix, report: Report
) -> None:
    training = start()
    training.reach(EARLY)
    pods = training.uids()

    since = time.monotonic()
    with faults.api_server_down(level):
        until(lambda: len(training.recording.closed(since)) >= 10, "rounds without an API server", seconds=60)
    mended = time.monotonic()

    assert training.succeeds() == reference
    assert training.uids() == pods
    report.add("API server restarted", training, since, mended=mended, outcome="no round was lost")


# What the tests do and ask.


def passed(moment: float) -> None:
    """Wait until a point in time: a fault that lasts a minute is one of the tests' inputs."""
    until(lambda: time.monotonic() >= moment, "the end of the fault", seconds=2 * MINUTE)


def in_order(pods: list[Object]) -> list[Object]:
    """Return pods in the order in which they were made."""
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def ended_with(pod: Object) -> int | None:
    """Return the exit code of the main container, None while it runs."""
    for container in pod["status"].get("containerStatuses") or ():
        if container["name"] == MAIN_CONTAINER and "terminated" in container["state"]:
            return int(container["state"]["terminated"]["exitCode"])
    return None


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
    found = api.list("Job", jobs.namespace)
    return {item["metadata"]["name"]: item["metadata"]["generation"] for item in found}
