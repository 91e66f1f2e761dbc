"""An edge node of KubeEdge's is cut off in the middle of a task: its worker trains on and is not replaced.

It ends as if nothing had happened, also when edgecore, cloudcore or the aggregator's pod is restarted
meanwhile: Succeeded, with the matrix of `engram run` of the same job on this machine, bit for bit.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from engram.spec.names import Phase, Reason, Role, WorkerCondition, worker_name
from tests.cluster import faults
from tests.cluster.api import Api, Object
from tests.cluster.containerd import ctr, forget_ended
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.broken import NAME, SPEC, end_with, passed, pinned, with_checkpoint
from tests.e2e.faulted import EARLY, through_a_power_cut
from tests.e2e.jobs import Jobs, Matrix, build_job, node_of
from tests.e2e.recovery import Report
from tests.e2e.reference import run_here
from tests.e2e.test_jobs import CHILDREN
from tests.e2e.training import Training

pytestmark = [pytest.mark.nodes, pytest.mark.kubeedge, pytest.mark.timeout(900)]

MINUTES = 180.0
"""How long the one long cut lasts."""
SHORT = 25.0
"""Seconds of the other cuts: the cluster has given the node up after 10."""
RECONNECTS_WITHIN = 15.0
EAST = worker_name("east", 0)
"""The one worker that edge1 alone may run."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """The matrix of the same job run on this machine."""
    return run_here(build_job(NAME, SPREAD), tmp_path_factory.mktemp("reference"))


SPREAD: Object = {
    **SPEC,
    "training": {**SPEC["training"], "roundsPerTask": 20},
    "workers": [group for group in SPEC["workers"] if group["name"] != "edge"],
}
"""A short job with one worker on each node: of two that start on one edgecore, one is a minute late
(docs/kubeedge.md)."""
LONG: Object = {
    **SPEC,
    "tasks": {"count": 2, "classesPerTask": 2},
    "training": {**SPEC["training"], "roundsPerTask": 3, "localSteps": 600},
    "workers": [pinned("east", "edge1"), pinned("west", "edge2")],
}
"""A job whose rounds last for seconds: a cable can be cut in the middle of one."""


def state_of(status: Object, worker: str) -> str:
    """Return what the status says of a worker in one word."""
    found = {item["name"]: item.get("state", "") for item in status.get("workerStatuses") or ()}
    return str(found.get(worker, ""))


def seen_disconnected(training: Training, since: float) -> None:
    """Wait until the status has called the worker of edge1 disconnected."""
    training.recording.first(
        lambda sample: state_of(sample.status, EAST) == WorkerCondition.DISCONNECTED,
        f"{EAST} disconnected",
        since=since,
    )


def took_part_again(training: Training, mended: float) -> float:
    """Return after how many seconds a round was closed, which with the full quorum waits for every worker."""
    return (
        until(lambda: training.recording.closed(mended), "a round with every worker", seconds=60)[0] - mended
    )


def said_by_aggregator(jobs: Jobs) -> str:
    """Return the log of the aggregator's pod; it tells of a round's end when the next one starts."""
    (pod,) = jobs.pods(NAME, Role.AGGREGATOR)
    return jobs.kubectl.run("logs", pod["metadata"]["name"])


def processor_seconds(level: NodeLevel, pod: Object) -> float:
    """Return the processor time that a pod on edge1 has used, as the node itself counts it."""
    folder = f"pod{pod['metadata']['uid']}"
    script = f"cat $(find /sys/fs/cgroup/cpuacct/ -type d -name {folder} | head -1)/cpuacct.usage"
    return int(level.nodes["edge1"].run(["sh", "-c", script])) / 1e9


def test_a_worker_trains_on_through_a_cut_of_three_minutes(
    start: Callable[..., Training], level: NodeLevel, jobs: Jobs, tmp_path: Path, report: Report
) -> None:
    training = start(LONG)
    training.reach(3)
    pods, east = training.uids(), training.pod(Role.WORKER, "east")
    until(lambda: "round 4/" in said_by_aggregator(jobs), "the start of round 5", every=0.1)

    since = time.monotonic()
    with faults.cable_cut(level, "edge1"):
        used = processor_seconds(level, east)
        until(lambda: processor_seconds(level, east) > used + 0.5, "training without a network", seconds=60)
        told = training.told(Reason.NODE_OFFLINE, since)
        seen_disconnected(training, since)
        training.told(Reason.QUORUM_NOT_REACHED, since)
        described = " ".join(jobs.kubectl.run("describe", "fij", NAME).split())
        assert f"{EAST}: node edge1 is out of touch with the cluster since" in described
        assert "the pod goes on where it is and is not replaced: mend the node or its network" in described
        assert training.uids() == pods, "nobody is replaced while its node may come back"
        passed(since + MINUTES)
        mended = time.monotonic()
        level.network.mend("edge1")
        assert took_part_again(training, mended) < RECONNECTS_WITHIN

    assert training.succeeds() == run_here(build_job(NAME, LONG), tmp_path)
    assert training.uids() == pods
    report.add("KubeEdge: cable cut for 180 s", "same pods", training, since, told, mended)


@contextmanager
def edgecore_restarted(level: NodeLevel, how: signal.Signals) -> Iterator[None]:
    """Restart the edgecore of edge1, which is cut off."""
    with faults.agent_ended(level, "edge1", how, cut_off=True):
        yield


DISTURBANCES: dict[str, Callable[[NodeLevel], AbstractContextManager[None]]] = {
    "edgecore-killed": lambda level: edgecore_restarted(level, signal.SIGKILL),
    "edgecore-stopped": lambda level: edgecore_restarted(level, signal.SIGTERM),
    "cloudcore-killed": lambda level: faults.cloudcore_down(level, cut_off=["edge1"]),
}


@pytest.mark.parametrize("disturbance", DISTURBANCES.values(), ids=DISTURBANCES)
def test_who_looks_after_a_node_is_restarted_while_it_is_cut_off(
    disturbance: Callable[[NodeLevel], AbstractContextManager[None]],
    start: Callable[..., Training],
    level: NodeLevel,
    reference: Matrix,
    report: Report,
    request: pytest.FixtureRequest,
) -> None:
    training = start(SPREAD)
    training.reach(EARLY)
    pods, east = training.uids(), training.pod(Role.WORKER, "east")

    since = time.monotonic()
    with faults.cable_cut(level, "edge1"):
        told = training.told(Reason.NODE_OFFLINE, since)
        with disturbance(level):
            passed(since + SHORT / 2)
        passed(since + SHORT)
        mended = time.monotonic()
        level.network.mend("edge1")
        assert took_part_again(training, mended) < RECONNECTS_WITHIN

    assert training.succeeds() == reference
    assert training.uids() == pods
    (after,) = training.jobs.pods(NAME, Role.WORKER, "east")
    assert containers_of(after) == containers_of(east)
    what = request.node.callspec.id.replace("-", " ")
    report.add(f"KubeEdge: the same for {SHORT:.0f} s, {what}", "same pods", training, since, told, mended)


def test_the_aggregator_is_replaced_while_a_node_is_cut_off(
    start: Callable[..., Training],
    level: NodeLevel,
    api: Api,
    checkpoint: Object,
    reference: Matrix,
    report: Report,
) -> None:
    training = start(with_checkpoint(checkpoint, SPREAD))
    before = training.reach(EARLY).round
    old = training.pod(Role.AGGREGATOR)["metadata"]
    pods = training.uids()

    since = time.monotonic()
    with faults.cable_cut(level, "edge1"):
        api.delete("Pod", old["name"], old["namespace"])
        told = training.told(Reason.NODE_OFFLINE, since)
        with edgecore_restarted(
            level, signal.SIGTERM
        ):  # which empties the ConfigMap of a worker that dials anew
            pass
        again = training.recording.first(
            lambda sample: sample.at > since + told.seconds and sample.round > 0, "the new aggregator's words"
        )
        mended = time.monotonic()
        level.network.mend("edge1")
        assert took_part_again(training, mended) < RECONNECTS_WITHIN

    assert training.succeeds() == reference
    assert again.round >= before - 1
    assert pods - training.uids() == {old["uid"]}
    report.add(
        "KubeEdge: the same, edgecore restarted and the aggregator replaced meanwhile",
        "workers' pods the same",
        training,
        since,
        told,
        mended,
    )


def test_a_worker_comes_back_when_the_power_of_its_node_does(
    start: Callable[..., Training], level: NodeLevel, jobs: Jobs, reference: Matrix, report: Report
) -> None:
    training = start(SPREAD)
    since, told, mended = through_a_power_cut(training, level)

    assert training.succeeds() == reference
    end_with(jobs, "east", [255, 0])
    report.add("KubeEdge: power of edge1 cut", "its worker came back", training, since, told, mended)


def test_with_a_lower_quorum_rounds_close_without_the_node_and_then_with_it_again(
    start: Callable[..., Training], level: NodeLevel, jobs: Jobs
) -> None:
    training = start({**SPREAD, "aggregation": {"quorum": "50%", "roundDeadlineSeconds": 2}})
    training.reach(EARLY)

    def degraded_and_whole() -> tuple[int, bool]:
        log = said_by_aggregator(jobs)
        return log.count("2 of 3 updates (degraded)"), "3 of 3 updates" in log.rpartition("(degraded)")[2]

    with faults.cable_cut(level, "edge1"):
        until(lambda: degraded_and_whole()[0] >= 3, "three rounds without the worker", every=0.5)
    until(lambda: degraded_and_whole()[1], "a round with the worker", every=0.5)


def test_a_worker_whose_end_its_node_forgot_is_no_failure(
    start: Callable[..., Training], level: NodeLevel, jobs: Jobs, reference: Matrix
) -> None:
    training = start(SPREAD)
    training.reach(EARLY)

    with faults.cloudcore_down(level):  # what the node says is lost; what the worker says comes through
        assert training.succeeds() == reference
        for name in ("edge1", "edge2"):
            until(lambda name=name: all_tasks_ended(level, name), f"the end of all tasks of {name}")  # type: ignore[misc]
            with faults.agent_ended(level, name, signal.SIGTERM, cut_off=True):
                forget_ended(level.nodes[name])

    # What Kubernetes then starts again is stopped: nobody answers it any more.
    ends = until(lambda: ends_at_the_edge(jobs), "the ends of the edge's workers", seconds=150)
    assert (137, "ContainerStatusUnknown") in ends, ends
    status = jobs.status(NAME)
    assert status["phase"] == Phase.SUCCEEDED
    assert status["workers"].get("failed", 0) == 0
    assert Reason.WORKER_FAILED not in [item["reason"] for item in jobs.events(NAME)]


def test_a_job_deleted_while_a_node_is_cut_off_says_what_it_waits_for(
    start: Callable[..., Training], level: NodeLevel, jobs: Jobs
) -> None:
    training = start(SPREAD)
    training.reach(EARLY)

    since = time.monotonic()
    with faults.cable_cut(level, "edge1"):
        training.told(Reason.NODE_OFFLINE, since)
        jobs.kubectl.run("delete", "fij", NAME)
        words = until(lambda: waits_for(jobs), "an Event that explains the wait")
        until(lambda: [node_of(pod) for pod in jobs.pods(NAME)] == ["edge1"], "the end of all other pods")

    assert "node edge1, out of touch since" in words
    jobs.nothing_left(NAME, CHILDREN)


def ends_at_the_edge(jobs: Jobs) -> list[tuple[int, str]]:
    """Return exit codes and reasons of the workers at the edge, once the cluster knows of their ends."""
    found = []
    for group in ("east", "west"):
        for pod in jobs.pods(NAME, Role.WORKER, group):
            for container in pod["status"].get("containerStatuses") or ():
                ended = container["state"].get("terminated")
                if ended is None:
                    raise NotYet(f"{pod['metadata']['name']} is {container['state']}")
                found.append((int(ended["exitCode"]), str(ended["reason"])))
    return found


def waits_for(jobs: Jobs) -> str:
    """Return what the Events say that the deletion waits for; empty: nothing yet."""
    found = [item["message"] for item in jobs.events(NAME) if item["reason"] == Reason.DELETION_WAITS]
    return str(found[0]) if found else ""


def all_tasks_ended(level: NodeLevel, name: str) -> bool:
    """Tell whether no task runs on a node any more, pauses included: edgecore has taken note of all ends."""
    if left := ctr(level.nodes[name], "tasks", "list", "--quiet").split():
        raise NotYet(f"{len(left)} tasks run on {name}")
    return True


def containers_of(pod: Object) -> list[tuple[str, int]]:
    """Return ids and restarts of a pod's containers."""
    return [(item["containerID"], item["restartCount"]) for item in pod["status"]["containerStatuses"]]
