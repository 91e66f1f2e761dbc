"""How a run ends: the aggregator's verdict, deadlines; and what becomes of pods and of the job afterwards."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from engram.spec.names import Condition, Phase, Reason
from engram.spec.summary import FinalSummary
from engram_operator.model import PodView, parse_time
from engram_operator.reconcile.after import ENDS_WITHIN
from tests.control.builders import (
    DURABLE,
    ago,
    condition,
    container,
    ended,
    job_object,
    pending,
    pod,
    true,
    unschedulable,
    waiting,
)
from tests.control.simulation import (
    AGGREGATION,
    REPORT,
    World,
    done,
    edit,
    failed,
    printed,
    says,
    started,
    status,
    up,
    workers_end,
)


@pytest.mark.parametrize("kind", ["Complete", "SuccessCriteriaMet"])
def test_succeeded(kind: str) -> None:
    world = up()
    world.now += timedelta(seconds=30)
    done(world, kind)
    plan = world.step()
    assert plan.delete == (), "status is written before anything goes"
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.SUCCEEDED, Reason.FINISHED)
    assert found["message"] == "All tasks are done: accuracy 93.1%, forget rate 4.2%."
    assert parse_time(found["completionTime"]) == world.now
    assert found["activeSeconds"] >= 30
    assert found["metrics"] == {"accuracy": "0.9310", "forgetRate": "0.0420"}
    assert found["tasks"][0]["index"] == 1
    assert found["display"]["accuracy"] == "93.1%"
    assert found["resumes"] == 1
    for name, value in {
        Condition.COMPLETE: "True",
        Condition.FAILED: "False",
        Condition.READY: "True",
        Condition.RECONCILING: "False",
        Condition.STALLED: "False",
        Condition.PROGRESSING: "False",
    }.items():
        assert says(world, name)[0] == value
    assert world.events == [Reason.FINISHED]
    assert plan.notes[0].kind == "Normal"


@pytest.mark.parametrize(
    ("policy", "left"),
    [("Running", {AGGREGATION}), ("All", set()), ("None", {AGGREGATION, "digits-edge"})],
)
def test_pods_are_cleaned_by_policy(policy: str, left: set[str]) -> None:
    world = up(runPolicy={"cleanPodPolicy": policy})
    done(world)
    world.settle()
    world.now += ENDS_WITHIN
    world.settle()
    assert set(world.jobs) == left | {REPORT}, "the report is still being made"
    printed(world)
    world.settle()
    assert set(world.jobs) == left | ({REPORT} if policy != "All" else set())
    assert not any(job["spec"].get("suspend") for job in world.jobs.values())
    assert "Service/digits-aggregation" in world.objects
    assert set(world.secrets) == {"digits-credentials", "digits-worker-tokens"}


@pytest.mark.parametrize("policy", ["Running", "None"])
def test_a_worker_that_is_begun_again_after_the_end_is_stopped(policy: str) -> None:
    """A node out of touch has lost a worker's end, which Kubernetes takes for a failure."""
    world = up(runPolicy={"cleanPodPolicy": policy})
    done(world)
    world.settle()
    printed(world)
    world.now += ENDS_WITHIN
    world.settle()
    replacement = pod(0, created=world.now)

    world.pods = (ended(0, 137, reason="ContainerStatusUnknown"), replacement)
    world.settle()

    if policy == "None":
        assert world.jobs["digits-edge"]["spec"]["suspend"]
    else:
        assert "digits-edge" not in world.jobs
    assert status(world)["workers"].get("failed", 0) == 0


def test_worker_jobs_that_ended_stay_with_policy_running() -> None:
    world = up()
    world.views["digits-edge"] = {"conditions": {"Complete": true()}}
    done(world)
    world.settle()
    world.now += ENDS_WITHIN
    world.settle()
    assert "digits-edge" in world.jobs


@pytest.mark.parametrize("seconds", [0, 1, 28])
def test_workers_that_are_just_ending_keep_their_job_and_its_logs(seconds: float) -> None:
    world = up()
    done(world)
    plans = world.settle()
    assert plans[-1].wake_after is not None
    assert 0 < plans[-1].wake_after <= ENDS_WITHIN.total_seconds()
    assert "digits-edge" in world.jobs
    world.now += timedelta(seconds=seconds)
    workers_end(world)
    for _ in range(3):
        world.settle()
        assert "digits-edge" in world.jobs
        world.now += timedelta(hours=1)
    assert world.step().wake_after is None


def test_workers_that_do_not_end_are_removed_when_their_time_is_over() -> None:
    world = up()
    done(world)
    plans = world.settle()
    world.now += timedelta(seconds=plans[-1].wake_after or 0)
    world.settle()
    assert set(world.jobs) == {AGGREGATION, REPORT}
    assert world.step().wake_after is None


def test_a_time_to_live_shorter_than_that_of_the_workers_counts() -> None:
    world = up(runPolicy={"ttlSecondsAfterFinished": 10})
    done(world)
    world.settle()
    printed(world)
    plans = world.settle()
    assert plans[-1].wake_after is not None
    assert plans[-1].wake_after <= 10


def test_a_job_without_time_to_live_goes_as_soon_as_its_report_is_stored() -> None:
    world = up(runPolicy={"ttlSecondsAfterFinished": 0})
    done(world)
    world.settle()
    printed(world)
    world.settle()
    assert world.raw is None


ENDING_PODS: dict[str, tuple[tuple[PodView, ...], dict[str, str], bool]] = {
    "both run": ((pod(0), pod(1)), {}, True),
    "one has ended": ((ended(0), pod(1)), {}, True),
    "the kubelet says Running for a while": (
        (pod(0, main=container("terminated", "Completed", exit_code=0)), pod(1)),
        {},
        True,
    ),
    "both have ended, the Job does not know yet": ((ended(0), ended(1)), {}, True),
    "one is done and gone": ((pod(1),), {"completed_indexes": "0"}, True),
    "one was lost before, the other is ending": ((ended(0, 43), pod(1)), {"failed_indexes": "0"}, True),
    "one waits for a node": ((pod(0), unschedulable(1)), {}, False),
    "one is being created": ((pod(0), waiting(1, "ContainerCreating")), {}, False),
    "one has failed and another may come": ((ended(0, 1, "x"), pod(1)), {}, False),
    "one is failing": (
        (pod(0, main=container("terminated", "Error", exit_code=1)), pod(1)),
        {},
        False,
    ),
    "one is being deleted": ((pod(0, deleting=ago(1)), pod(1)), {}, False),
    "one has no pod": ((pod(1),), {}, False),
    "pods of another group": ((pod(0, group="other"), pod(1, group="other")), {}, False),
}


@pytest.mark.parametrize(("pods", "view", "stays"), ENDING_PODS.values(), ids=ENDING_PODS)
def test_only_jobs_that_end_by_themselves_have_time(
    pods: tuple[PodView, ...], view: dict[str, object], stays: bool
) -> None:
    world = up()
    done(world)
    world.pods, world.views["digits-edge"] = (world.pods[0], *pods), view
    world.settle()
    assert ("digits-edge" in world.jobs) is stays


def test_a_run_that_failed_takes_its_workers_along_at_once() -> None:
    """They end with an error, so their Job would start them again."""
    world = up()
    failed(world, error(42, "x"))
    world.settle()
    assert "digits-edge" not in world.jobs


def test_once_completed_nothing_is_made_again() -> None:
    world = up()
    done(world)
    world.settle()
    printed(world)
    world.settle()
    world.jobs.clear()
    world.objects.clear()
    world.secrets.clear()
    world.pods = ()
    world.writes.clear()
    plan = world.step()
    assert world.writes == []
    assert plan.wake_after is None


def test_a_complete_job_is_never_failed_by_what_comes_later() -> None:
    world = up(runPolicy={"activeDeadlineSeconds": 60, "cleanPodPolicy": "None"})
    done(world)
    world.settle()
    world.now += timedelta(days=2)
    world.views[AGGREGATION] = {"conditions": {"Failed": true("BackoffLimitExceeded")}}
    world.settle()
    assert says(world, Condition.COMPLETE)[0] == "True"
    assert says(world, Condition.FAILED)[0] == "False"


def test_the_last_word_is_waited_for() -> None:
    world = up()
    last_words = world.pods
    done(world)
    finished, world.pods = world.pods, last_words
    plan = world.step()
    assert world.writes == []
    assert plan.wake_after == 10
    world.now += timedelta(seconds=1)
    world.pods = finished
    world.settle()
    assert status(world)["metrics"]


def test_the_last_word_is_not_waited_for_for_ever() -> None:
    world = up()
    done(world)
    world.pods = world.pods[1:]
    world.now += timedelta(seconds=10)
    world.settle()
    assert status(world)["phase"] == Phase.SUCCEEDED
    assert "no summary" in status(world)["message"]


def test_a_job_that_a_fake_kubelet_finished_has_no_summary() -> None:
    world = up()
    done(world, message="")
    world.step()
    assert status(world)["phase"] == Phase.SUCCEEDED


def test_a_worker_job_that_failed_does_not_fail_the_run() -> None:
    world = up()
    world.views["digits-edge"] = {"conditions": {"Failed": true("FailedIndexes")}, "failed_indexes": "0"}
    done(world)
    world.settle()
    assert status(world)["phase"] == Phase.SUCCEEDED


def error(code: int, message: str, reason: str = "") -> PodView:
    summary = FinalSummary(
        outcome="failed", exit_code=code, message=message, reason=reason, metrics={"accuracy": "0.5"}
    )
    return ended(None, code, summary.encode())


FAILURES: dict[str, tuple[PodView, str, Reason, str]] = {
    "configuration": (
        error(42, "spec.model.name: no such module: x: write y", "ConfigurationError"),
        "PodFailurePolicy",
        Reason.CONFIGURATION_ERROR,
        "write y",
    ),
    "configuration, in an image without reasons": (
        error(42, "spec.model.name: no such module: x: write y"),
        "PodFailurePolicy",
        Reason.CONFIGURATION_ERROR,
        "write y",
    ),
    "data": (
        error(43, "/data is empty", "DataError"),
        "PodFailurePolicy",
        Reason.DATA_ERROR,
        "/data is empty",
    ),
    "data, in an image without reasons": (
        error(43, "/data is empty"),
        "PodFailurePolicy",
        Reason.DATA_ERROR,
        "/data is empty",
    ),
    "port": (
        error(42, "port 7363 of 0.0.0.0 is taken: end what listens there", "PortTaken"),
        "PodFailurePolicy",
        Reason.PORT_TAKEN,
        "another spec.aggregator.nodeName",
    ),
    "memory that it was not given": (
        error(42, "out of memory: lower training.batchSize", "OutOfMemory"),
        "PodFailurePolicy",
        Reason.OUT_OF_MEMORY,
        "batchSize",
    ),
    "not finite": (
        error(42, "trainworker-edge-0: the loss is nan in step 1", "NumericalError"),
        "PodFailurePolicy",
        Reason.NUMERICAL_ERROR,
        "nan",
    ),
    "checkpoint": (
        error(42, "x: the disk is full: make room", "CheckpointFailed"),
        "PodFailurePolicy",
        Reason.CHECKPOINT_FAILED,
        "room",
    ),
    "out of memory": (
        ended(None, 137, reason="OOMKilled", memory_limit="64Mi"),
        "BackoffLimitExceeded",
        Reason.OUT_OF_MEMORY,
        "limit 64Mi",
    ),
    "quorum with policy Fail": (
        error(42, "round 1 of task 1: 1 of 2 workers at the deadline of 600 s", "QuorumNotReached"),
        "PodFailurePolicy",
        Reason.QUORUM_NOT_REACHED,
        "1 of 2 workers",
    ),
    "crashes": (
        ended(None, 1, "ValueError: x"),
        "BackoffLimitExceeded",
        Reason.BACKOFF_LIMIT_EXCEEDED,
        "ValueError: x",
    ),
    "gave up": (ended(None, 3, "odd"), "PodFailurePolicy", Reason.RUN_FAILED, "odd"),
}


@pytest.mark.parametrize(("last", "condition_reason", "reason", "words"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("kind", ["Failed", "FailureTarget"])
def test_failed(last: PodView, condition_reason: str, reason: Reason, words: str, kind: str) -> None:
    world = up()
    failed(world, last, reason=condition_reason, kind=kind)
    world.step()
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.FAILED, reason)
    assert words in found["message"]
    assert "tries again" not in found["message"]
    assert "completionTime" in found
    for name, value in {
        Condition.COMPLETE: "False",
        Condition.FAILED: "True",
        Condition.READY: "False",
        Condition.STALLED: "True",
        Condition.RECONCILING: "False",
    }.items():
        assert says(world, name)[0] == value
    assert world.events == [reason]


def test_a_failed_run_keeps_the_metrics_it_had() -> None:
    world = up()
    failed(world, error(42, "x"))
    world.step()
    assert status(world)["metrics"] == {"accuracy": "0.5"}


def test_a_failed_job_without_its_pods() -> None:
    world = up()
    failed(world)
    world.now += timedelta(seconds=10)
    world.settle()
    assert (status(world)["phase"], status(world)["reason"]) == (Phase.FAILED, Reason.BACKOFF_LIMIT_EXCEEDED)
    assert "Job has failed" in status(world)["message"]


def test_the_newest_try_counts() -> None:
    world = up()
    old = replace(ended(None, 1, "old"), name="a", created=ago(300))
    failed(world, old, ended(None, 43, "new"))
    world.step()
    assert status(world)["reason"] == Reason.DATA_ERROR


def test_active_deadline() -> None:
    world = up(runPolicy={"activeDeadlineSeconds": 100})
    plan = world.step()
    assert plan.wake_after is not None
    assert plan.wake_after <= 100
    world.now += timedelta(seconds=plan.wake_after)
    world.settle()
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.FAILED, Reason.DEADLINE_EXCEEDED)
    assert "activeDeadlineSeconds (100)" in found["message"]
    assert world.jobs == {}, "Jobs that still ran are gone"


def test_a_deadline_stops_pods_under_any_policy() -> None:
    world = up(runPolicy={"activeDeadlineSeconds": 100, "cleanPodPolicy": "None"})
    world.now += timedelta(seconds=100)
    world.settle()
    assert set(world.jobs) == {AGGREGATION, "digits-edge"}
    assert all(job["spec"]["suspend"] for job in world.jobs.values())


def test_suspended_time_does_not_count() -> None:
    world = up(runPolicy={"activeDeadlineSeconds": 100})
    world.now += timedelta(seconds=60)
    edit(world, suspend=True)
    world.settle()
    world.now += timedelta(days=1)
    edit(world, suspend=False)
    world.settle()
    world.now += timedelta(seconds=20)
    world.settle()
    assert status(world)["phase"] != Phase.FAILED
    world.now += timedelta(seconds=30)
    world.settle()
    assert status(world)["reason"] == Reason.DEADLINE_EXCEEDED


def test_an_aggregator_that_is_pending_for_too_long() -> None:
    world = started(runPolicy={"pendingDeadlineSeconds": 60})
    world.pods = (unschedulable(created=world.now),)
    plans = world.settle()
    assert plans[-1].wake_after is not None
    assert plans[-1].wake_after <= 60
    world.now += timedelta(seconds=60)
    world.settle()
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.FAILED, Reason.PENDING_DEADLINE_EXCEEDED)
    assert "Insufficient cpu" in found["message"]
    assert "pendingDeadlineSeconds (60 s)" in found["message"]


def test_an_aggregator_whose_pods_are_refused_for_too_long() -> None:
    world = started(runPolicy={"pendingDeadlineSeconds": 60})
    world.changes["refusals"] = {AGGREGATION: 'pods "x" is forbidden: exceeded quota: small'}
    world.now += timedelta(seconds=61)
    world.settle()
    assert status(world)["reason"] == Reason.PENDING_DEADLINE_EXCEEDED
    assert "exceeded quota: small" in status(world)["message"]


def test_workers_pending_for_too_long_end_the_run_only_without_a_quorum() -> None:
    for quorum, phase in ((1, Phase.RUNNING), (2, Phase.FAILED)):
        world = started(runPolicy={"pendingDeadlineSeconds": 60}, aggregation={"quorum": quorum})
        world.pods = (pod(), pod(0), unschedulable(1, created=world.now))
        world.now += timedelta(seconds=61)
        world.settle()
        assert status(world)["phase"] == phase, quorum
        assert "Insufficient cpu" in status(world)["message"]


def test_a_worker_pending_for_too_long_without_a_cause() -> None:
    world = started(runPolicy={"pendingDeadlineSeconds": 60}, aggregation={"quorum": 1})
    world.pods = (pod(), pod(0), pending(1, created=ago(61)))
    world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.PENDING_DEADLINE_EXCEEDED)


def test_waiting_for_kubernetes_backoff_is_not_pending() -> None:
    world = up(runPolicy={"pendingDeadlineSeconds": 60}, aggregation={"quorum": 1})
    world.pods = (ended(None, 1, "x"), ended(0, 1, "x"), pod(1))
    world.now += timedelta(seconds=300)
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING


def test_ttl_deletes_the_job_itself() -> None:
    world = up(runPolicy={"ttlSecondsAfterFinished": 60})
    done(world)
    world.settle()
    printed(world)
    plans = world.settle()
    assert plans[-1].wake_after is not None
    assert 0 < plans[-1].wake_after <= 60
    world.now += timedelta(seconds=60)
    world.step()
    assert world.raw is None
    assert world.writes[-1] == "delete FederatedIncrementalJob/digits"


def test_an_edit_after_the_end_is_seen() -> None:
    world = up()
    done(world)
    world.settle()
    edit(world, runPolicy={"ttlSecondsAfterFinished": 3600})
    world.writes.clear()
    world.settle()
    assert world.writes == ["status"]
    assert status(world)["observedGeneration"] == 2
    assert condition(status(world), Condition.COMPLETE)["observedGeneration"] == 2


def test_a_run_that_ends_while_it_is_being_suspended() -> None:
    world = up()
    edit(world, suspend=True)
    done(world)
    world.settle()
    assert status(world)["phase"] == Phase.SUCCEEDED


def test_a_run_that_ended_while_the_operator_was_away() -> None:
    """Started and finished between two looks, with no status at all."""
    world = World(job_object(aggregator=DURABLE))
    world.step()
    assert world.raw is not None
    started_at: Any = copy.deepcopy(world.raw["status"]["startTime"])
    world.raw.pop("status")
    done(world)
    world.settle()
    found = status(world)
    assert found["phase"] == Phase.SUCCEEDED
    assert parse_time(found["startTime"]) >= parse_time(started_at)  # type: ignore[operator]
