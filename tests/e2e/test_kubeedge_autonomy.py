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

from engram.spec.names import Reason, Role, WorkerCondition, worker_name
from tests.cluster import faults
from tests.cluster.api import Object
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import until
from tests.e2e.broken import NAME, SPEC, passed, pinned
from tests.e2e.jobs import Jobs, Matrix, build_job
from tests.e2e.recovery import Report
from tests.e2e.reference import run_here
from tests.e2e.training import Training

pytestmark = [pytest.mark.nodes, pytest.mark.kubeedge, pytest.mark.timeout(900)]

MINUTES = 180.0
"""How long the one long cut lasts."""
SHORT = 40.0
"""Seconds of the other cuts: the aggregator calls a worker disconnected that was silent for 30."""
RECONNECTS_WITHIN = 15.0
EAST = worker_name("east", 0)
"""The one worker that edge1 alone may run."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """The matrix of the same job run on this machine."""
    return run_here(build_job(NAME, SPEC), tmp_path_factory.mktemp("reference"))


LONG: Object = {
    **SPEC,
    "tasks": {"count": 2, "classesPerTask": 2},
    "training": {**SPEC["training"], "roundsPerTask": 3, "localSteps": 600},
    "workers": [pinned("east", "edge1"), pinned("west", "edge2")],
}
"""A job whose rounds last for seconds: a cable can be cut in the middle of one."""


def state_of(status: Object, worker: str) -> str:
    """Return what the status says of a worker in one word."""
    found = (item for item in status.get("workerStatuses") or () if item["name"] == worker)
    return str(next(found, {}).get("state", ""))


def seen_disconnected(training: Training, since: float) -> None:
    """Wait until the status has called the worker of edge1 disconnected."""
    training.recording.first(
        lambda sample: state_of(sample.status, EAST) == WorkerCondition.DISCONNECTED,
        f"{EAST} disconnected",
        since=since,
    )


def connected_again(training: Training, mended: float) -> float:
    """Return how many seconds after `mended` the status had every worker connected."""
    found = training.recording.first(
        lambda sample: (
            sample.status["workers"].get("connected") == 4
            and state_of(sample.status, EAST) != WorkerCondition.DISCONNECTED
        ),
        "every worker connected",
        since=mended,
        seconds=60,
    )
    return found.at - mended


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

    since = time.monotonic()
    with faults.cable_cut(level, "edge1"):
        used = processor_seconds(level, east)
        until(lambda: processor_seconds(level, east) > used + 0.5, "training without a network", seconds=60)
        told = training.told(Reason.NODE_OFFLINE, since)
        seen_disconnected(training, since)
        training.told(Reason.QUORUM_NOT_REACHED, since)
        described = jobs.kubectl.run("describe", "fij", NAME)
        assert f"{EAST} has sent no sign of life" in " ".join(described.split()) or "edge1" in described
        assert training.uids() == pods, "nobody is replaced while its node may come back"
        passed(since + MINUTES)
        mended = time.monotonic()
        level.network.mend("edge1")
        assert connected_again(training, mended) < RECONNECTS_WITHIN

    assert training.succeeds() == run_here(build_job(NAME, LONG), tmp_path)
    assert training.uids() == pods
    report.add("KubeEdge: cable cut for 180 s", "same pods", training, since, told, mended)


@contextmanager
def edgecore_restarted(level: NodeLevel, how: signal.Signals) -> Iterator[None]:
    """Restart the edgecore of edge1, which is cut off, and give it time to make up its mind."""
    with faults.agent_ended(level, "edge1", how, cut_off=True):
        pass
    yield


DISTURBANCES: dict[str, Callable[[NodeLevel], AbstractContextManager[None]]] = {
    "edgecore-killed": lambda level: edgecore_restarted(level, signal.SIGKILL),
    "edgecore-stopped": lambda level: edgecore_restarted(level, signal.SIGTERM),
    "cloudcore": faults.cloudcore_down,
}
