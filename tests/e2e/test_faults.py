"""What goes wrong in the field, done to real nodes under a training run: it ends as if nothing had happened.

"As if nothing": Succeeded, and the accuracy matrix of `engram run` of the same job on this machine, bit for
bit. Recovery times go into the file that ENGRAM_FAULTS_JSON names, which `benchmarks/faults.py` sets.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from engram.spec.exit_codes import ExitCode
from engram.spec.names import Label, Phase, Reason, Role
from tests.cluster import faults
from tests.cluster.api import Api, Object
from tests.cluster.fixtures import Cluster
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import until
from tests.e2e.broken import (
    EAT,
    MEMORY,
    NAME,
    SPEC,
    default_image,
    elsewhere,
    end_with,
    ended_with,
    generations_of,
    kept,
    kill_operator,
    passed,
    with_checkpoint,
    with_quorum,
)
from tests.e2e.faulted import EARLY, through_a_power_cut
from tests.e2e.jobs import OPERATOR, SYSTEM, Jobs, Matrix, build_job, node_of
from tests.e2e.recovery import Report
from tests.e2e.reference import run_here
from tests.e2e.training import ENDS_WITHIN, Told, Training

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(1200)]

MINUTE = 60.0
KILLS = 10
OTHER_IMAGE = "engram-runtime:0.0.0-other"
"""There is no such image: a pod made with it would not start."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """The matrix of the same job run on this machine."""
    return run_here(build_job(NAME, SPEC), tmp_path_factory.mktemp("reference"))


@pytest.fixture
def deployment(control_plane: Cluster, operator: str) -> Kubectl:
    """kubectl in the operator's namespace."""
    return control_plane.kubectl.inside(SYSTEM)


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
    training = start(with_checkpoint(request.getfixturevalue("checkpoint")) if durable else SPEC)
    before = training.reach(EARLY).round
    pods = training.uids()
    old = training.pod(Role.AGGREGATOR)["metadata"]

    since = time.monotonic()
    api.delete("Pod", old["name"], old["namespace"])
    told = training.told(Reason.AGGREGATOR_RESTARTING, since)
    again = training.recording.first(
        lambda sample: sample.round > 0, "the new aggregator's first words", since=since + told.seconds
    )  # before its first round it says which one was closed last

    assert training.succeeds() == reference
    assert again.round >= before - 1 if durable else again.round < before - 1
    assert pods - training.uids() == {old["uid"]}
    where = "at its round" if durable else "from round 1"
    report.add(
        f"aggregator's pod deleted, checkpoint {'on a volume' if durable else 'in an emptyDir'}",
        f"went on {where}",
        training,
        since,
        told,
    )


def test_a_run_is_suspended_for_a_minute_and_resumed(
    start: Callable[..., Training], checkpoint: Object, jobs: Jobs, reference: Matrix, report: Report
) -> None:
    training = start(with_checkpoint(checkpoint))
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
    again = training.recording.first(
        lambda sample: sample.round > 0, "the new aggregator's first words", since=mended
    )

    assert training.succeeds() == reference
    assert again.round >= before - 1
    told = Told(Reason.SUSPENDED, rests.at - since)
    report.add("suspended for 60 s, resumed", "went on at its round", training, since, told, mended)


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
    end_with(jobs, "edge", [137, 0])
    report.add("worker killed for memory", "", training, since, told)


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
    report.add("worker's node drained", "index came back on another node", training, since, told, mended)


# A node at the edge.


def test_the_kubelet_of_an_edge_node_is_killed_and_restarted(
    start: Callable[..., Training], level: NodeLevel, reference: Matrix, report: Report
) -> None:
    training = start()
    training.reach(EARLY)
    pods = training.uids()

    since = time.monotonic()
    with faults.agent_ended(level, "edge1"):
        told = training.told(Reason.NODE_OFFLINE, since)
        assert training.recording.closed(since), "training goes on without kubelet"
    mended = time.monotonic()

    assert training.succeeds() == reference
    assert training.uids() == pods
    report.add(
        "kubelet of an edge node killed", "no round was lost", training, since, told, mended, stops=False
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
            lambda sample: sample.status["workers"].get("disconnected", 0) > 0,
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
        "cable of an edge node cut for 60 s", "same pods, the round waited", training, since, told, mended
    )


def test_with_a_lower_quorum_rounds_close_without_a_worker_that_is_cut_off(
    start: Callable[..., Training], level: NodeLevel, report: Report
) -> None:
    training = start(with_quorum("50%", deadline_seconds=2))
    training.reach(EARLY)

    since = time.monotonic()
    with faults.cable_cut(level, "edge2"):
        told = training.told(Reason.NODE_OFFLINE, since)
        until(lambda: len(training.recording.closed(since)) >= 3, "three rounds without the worker")
    mended = time.monotonic()
    training.well(mended)

    training.succeeds()
    report.add(
        "the same, with quorum 50 % and a deadline of 2 s",
        "rounds closed without it",
        training,
        since,
        told,
        mended,
        stops=False,
        same=False,
    )


def test_the_power_of_an_edge_node_is_cut_and_returns(
    start: Callable[..., Training], level: NodeLevel, jobs: Jobs, reference: Matrix, report: Report
) -> None:
    training = start()
    since, told, mended = through_a_power_cut(training, level)

    assert training.succeeds() == reference
    end_with(jobs, "east", [255, 0])
    report.add("power of an edge node cut", "its workers came back", training, since, told, mended)


# Who looks after it.


def test_the_operator_is_killed_ten_times(
    start: Callable[..., Training],
    level: NodeLevel,
    deployment: Kubectl,
    jobs: Jobs,
    reference: Matrix,
    report: Report,
) -> None:
    training = start()
    for number in range(KILLS):
        kill_operator(level, deployment, at_work=number % 2 == 1)
    deployment.run("rollout", "status", f"deployment/{OPERATOR}", "--timeout=60s", seconds=70)

    assert training.succeeds() == reference
    roles = [pod["metadata"]["labels"][Label.ROLE] for pod in jobs.pods(NAME)]
    assert sorted(role for role in roles if role != Role.REPORT) == [Role.AGGREGATOR, *[Role.WORKER] * 4]
    first = training.recording.first(lambda sample: sample.round > 0, "the first round")
    report.add(
        "operator killed ten times from the start on", "each pod made once", training, first.at, stops=False
    )


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
    report.add(
        "operator upgraded to another default image", "nothing restarted", training, since, stops=False
    )


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
    report.add("API server restarted", "no round was lost", training, since, None, mended, stops=False)
