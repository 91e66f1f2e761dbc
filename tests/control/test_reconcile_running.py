"""Jobs under way: coming up, degraded and mended, edited, scaled, suspended and resumed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from engram.spec.names import Condition, Phase, Reason, SpecKey
from engram_operator.model import ConditionView, Live, Object, PodView
from tests.control.builders import (
    DURABLE,
    ago,
    condition,
    container,
    ended,
    job_object,
    live,
    node,
    pending,
    pod,
    true,
    unschedulable,
    waiting,
)
from tests.control.simulation import FLEET, LOCAL, World, edit, says, started, status, up

# It comes up.


def test_twelve_writes_until_it_runs() -> None:
    world = World(job_object(aggregator=DURABLE))
    world.settle()
    for pods in (
        (pending(),),
        (pod(), pending(0), pending(1)),
        (pod(), pod(0), pending(1)),
    ):
        world.pods = pods
        world.settle()
    world.pods = FLEET
    world.settle()
    assert len(world.writes) <= 12, world.writes
    assert world.events == [Reason.VALID, Reason.TRAINING]
    assert status(world)["phase"] == Phase.RUNNING


def test_a_second_look_at_an_unchanged_job_writes_nothing() -> None:
    world = up()
    plan = world.step()
    assert world.writes == []
    assert plan.poll
    assert plan.wake_after is not None


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        ((), Reason.WAITING_FOR_AGGREGATOR),
        ((pending(),), Reason.WAITING_FOR_AGGREGATOR),
        ((pod(), pending(0)), Reason.WAITING_FOR_WORKERS),
        ((pod(), pod(0)), Reason.WAITING_FOR_WORKERS),
        ((unschedulable(), pod(0)), Reason.UNSCHEDULABLE),
        ((pod(), unschedulable(0)), Reason.UNSCHEDULABLE),
        ((waiting(None, "ErrImagePull", "no"),), Reason.IMAGE_PULL_FAILED),
    ],
)
def test_what_a_job_waits_for(pods: Iterable[PodView], reason: Reason) -> None:
    world = started()
    world.pods = tuple(pods)
    world.now += timedelta(seconds=30)
    world.settle()
    assert status(world)["phase"] == Phase.STARTING
    assert says(world, Condition.PROGRESSING) == ("False", reason)
    assert status(world)["reason"] == reason


def test_a_quorum_of_pods_is_enough_to_run() -> None:
    world = started(aggregation={"quorum": "50%"})
    world.pods = (pod(), pod(0), pending(1))
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING
    assert says(world, Condition.WORKERS_READY) == ("False", Reason.WAITING_FOR_WORKERS)


def test_a_round_that_has_begun_is_enough_to_run() -> None:
    world = started()
    world.pods = (pod(), pod(0))
    world.changes["live"] = live(connected=1)
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING


def test_the_live_status_is_copied() -> None:
    world = up()
    world.changes["live"] = live(round=7)
    world.settle()
    found = status(world)
    assert found["display"]["round"] == "7/25"
    assert found["progress"]["percent"] == 28
    assert "secondsLeft" not in found["progress"]
    assert found["metrics"] == {"accuracy": "0.9310"}
    assert found["workers"]["connected"] == 2
    assert found["message"] == "Task 1 of 5, round 7 of 25."
    world.changes["live"] = None
    world.settle()
    assert status(world)["progress"]["round"] == 7, "kept while nobody answers"


# Something is wrong, and the run goes on.

_UNSEEN = {"Ready": ConditionView("False"), "ContainersReady": true()}
"""What the node controller leaves of the conditions of a pod whose node is out of touch."""
_LOST = replace(pod(), deleting=ago(90), conditions=_UNSEEN)
_SILENT = live(
    connected=1,
    workers=[
        {"name": "trainworker-edge-0", "state": "disconnected", "lastSeenTime": "2026-01-02T11:59:00Z"},
        {"name": "trainworker-edge-1", "state": "training", "round": 3},
    ],
)
_LAGS = live(
    round=8,
    workers=[
        {"name": "trainworker-edge-0", "state": "training", "round": 5},
        {"name": "trainworker-edge-1", "state": "training", "round": 8},
    ],
)
_ABSENT = live(connected=1, workers=[{"name": "trainworker-edge-1", "state": "training", "round": 3}])

DEGRADED: dict[str, tuple[tuple[PodView, ...], Live | None, Reason, str]] = {
    "aggregator's pod lost": ((pod(0), pod(1)), None, Reason.AGGREGATOR_RESTARTING, "checkpoint"),
    "aggregator's new pod comes": (
        (pending(), pod(0), pod(1)),
        None,
        Reason.AGGREGATOR_RESTARTING,
        "workers reconnect",
    ),
    "aggregator drained": (
        (ended(None, 75), pod(0), pod(1)),
        None,
        Reason.AGGREGATOR_RESTARTING,
        "starts it again",
    ),
    "aggregator out of memory": (
        (ended(None, 137, memory_limit="1Gi"), pod(0), pod(1)),
        None,
        Reason.OUT_OF_MEMORY,
        "limit 1Gi",
    ),
    "aggregator's node out of touch": (
        (
            replace(pod(), conditions=_UNSEEN),
            pod(0),
            pod(1),
        ),
        None,
        Reason.NODE_OFFLINE,
        "node cloud",
    ),
    "aggregator's node lost": ((_LOST, pod(0), pod(1)), None, Reason.AGGREGATOR_NODE_LOST, "out-of-service"),
    "aggregator's node lost, its pod just given up": (
        (replace(_LOST, deleting=ago(-58)), pod(0), pod(1)),
        None,
        Reason.AGGREGATOR_NODE_LOST,
        "out-of-service",
    ),
    "worker crashed": ((pod(), ended(0, 1, "boom"), pod(1)), None, Reason.WORKER_FAILED, "boom"),
    "worker out of memory": ((pod(), ended(0, 137), pod(1)), None, Reason.OUT_OF_MEMORY, "batchSize"),
    "worker unschedulable": (
        (pod(), unschedulable(0), pod(1)),
        None,
        Reason.UNSCHEDULABLE,
        "Insufficient cpu",
    ),
    "worker silent": (FLEET, _SILENT, Reason.QUORUM_NOT_REACHED, "1 of 2"),
    "worker lags": (FLEET, _LAGS, Reason.ROUND_DEGRADED, "round 5"),
    "worker never came": (FLEET, _ABSENT, Reason.AGGREGATOR_UNREACHABLE, ":7363"),
    "worker's node out of touch": (
        (
            pod(),
            replace(pod(0), conditions=_UNSEEN),
            pod(1),
        ),
        None,
        Reason.NODE_OFFLINE,
        "edge0",
    ),
}


@pytest.mark.parametrize(("pods", "said", "reason", "words"), DEGRADED.values(), ids=DEGRADED)
def test_degraded_and_well_again(
    pods: tuple[PodView, ...], said: Live | None, reason: Reason, words: str
) -> None:
    world = up()
    world.pods, world.changes["live"] = pods, said
    world.settle()
    found = status(world)
    assert found["phase"] == Phase.RUNNING
    assert says(world, Condition.DEGRADED) == ("True", reason)
    assert says(world, Condition.FAILED)[0] == "False"
    assert found["reason"] == reason
    assert words in found["message"]
    assert world.events == [reason]
    world.now += timedelta(seconds=120)
    world.pods, world.changes["live"] = FLEET, live()
    world.settle()
    assert says(world, Condition.DEGRADED) == ("False", Reason.AS_EXPECTED)
    assert says(world, Condition.STALLED) == ("False", Reason.AS_EXPECTED)
    assert world.events == [reason, Reason.TRAINING]


@pytest.mark.parametrize(
    ("rule", "field"),
    [({}, "aggregation.roundDeadlineSeconds"), ({"stragglerFactor": 2}, "aggregation.stragglerFactor")],
)
def test_of_a_worker_that_lags_the_field_is_named_that_closed_its_rounds(rule: Object, field: str) -> None:
    world = up(aggregation={"quorum": "50%", **rule})
    world.pods, world.changes["live"] = FLEET, _LAGS
    world.settle()
    assert f"raise {field} or give it less work" in status(world)["message"]


def test_in_asynchronous_rounds_a_worker_that_lags_is_nothing_to_tell() -> None:
    world = up(aggregation={"buffer": {"size": 1}})
    world.pods, world.changes["live"] = FLEET, _LAGS
    world.settle()
    assert says(world, Condition.DEGRADED) == ("False", Reason.AS_EXPECTED)


def test_an_aggregator_that_does_not_go_is_taken_for_lost_in_time() -> None:
    world = up()
    world.pods = (replace(pod(), deleting=ago(20)), pod(0), pod(1))  # nodes may not be read
    *_, plan = world.settle()
    assert says(world, Condition.DEGRADED) == ("False", Reason.AS_EXPECTED)
    assert plan.wake_after is not None
    world.now += timedelta(seconds=plan.wake_after)
    assert world.now == ago(20) + timedelta(seconds=60)
    *_, plan = world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.AGGREGATOR_NODE_LOST)
    assert plan.wake_after is None or plan.wake_after > 60


def test_workers_have_time_to_connect_once_the_aggregator_serves() -> None:
    world = up()
    late = pod(conditions={"Ready": ConditionView("True", since=ago(5))})
    world.pods, world.changes["live"] = (late, pod(0), pod(1)), _ABSENT
    world.settle()
    assert says(world, Condition.DEGRADED)[0] == "False"


def test_who_took_part_is_shown_when_nobody_runs_any_more() -> None:
    world = up()
    world.settle()
    over = live(connected=0, phase="Succeeded", display={"workers": "2/2"})
    world.pods, world.changes["live"] = (pod(), ended(0), ended(1)), over
    world.settle()
    assert status(world)["display"]["workers"] == "2/2"


def test_a_disconnected_worker_within_the_quorum() -> None:
    world = up(aggregation={"quorum": "50%"})
    world.changes["live"] = _SILENT
    world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.WORKER_DISCONNECTED)
    worst = status(world)["workerStatuses"][0]
    assert (worst["name"], worst["state"]) == ("trainworker-edge-0", "disconnected")
    assert worst["lastSeenTime"] == "2026-01-02T11:59:00Z"
    assert status(world)["workers"] == {
        "desired": 2,
        "running": 2,
        "connected": 1,
        "disconnected": 1,
        "failed": 0,
    }


def test_an_edge_agent_that_lost_a_container_whose_worker_had_finished() -> None:
    world = up()
    world.pods = (pod(), ended(0, 137, reason="ContainerStatusUnknown"), pod(1))
    world.changes["live"] = live(
        workers=[
            {"name": "trainworker-edge-0", "state": "finished"},
            {"name": "trainworker-edge-1", "state": "training"},
        ]
    )
    world.settle()
    assert says(world, Condition.DEGRADED)[0] == "False"


def test_a_checkpoint_that_dies_says_that_the_run_starts_again() -> None:
    world = up(aggregator={})
    world.pods = FLEET[1:]
    world.settle()
    assert "starts again from round 1" in status(world)["message"]


def test_a_worker_that_is_gone_for_good() -> None:
    world = up(aggregation={"quorum": 1})
    world.views["digits-edge"] = {"failed_indexes": "0"}
    world.pods = (pod(), ended(0, 43, "engram: /data is empty"), pod(1))
    world.settle()
    found = status(world)
    assert says(world, Condition.DEGRADED) == ("True", Reason.DATA_ERROR)
    assert says(world, Condition.STALLED)[0] == "False", "the quorum goes on without it"
    assert found["workers"]["failed"] == 1
    assert found["workerStatuses"][0]["state"] == "failed"
    assert "not replaced" in found["message"]


def test_a_worker_job_that_failed_makes_degraded_and_stalled_when_no_quorum_is_left() -> None:
    world = up()
    world.views["digits-edge"] = {"conditions": {"FailureTarget": true("PodFailurePolicy", "exit code 42")}}
    world.pods = (pod(), ended(0, 42, "engram: spec.model: wrong"))
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING
    assert says(world, Condition.DEGRADED) == ("True", Reason.CONFIGURATION_ERROR)
    assert says(world, Condition.STALLED) == ("True", Reason.CONFIGURATION_ERROR)


def test_a_worker_job_that_failed_after_all_were_done_is_no_news() -> None:
    world = up()
    world.views["digits-edge"] = {
        "completed_indexes": "0",
        "failed_indexes": "1",
        "conditions": {"Failed": true("FailedIndexes", "Job has failed indexes")},
    }
    world.pods = (pod(),)
    world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.WORKER_FAILED)
    assert status(world)["phase"] == Phase.RUNNING


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('Error creating: pods "x" is forbidden: exceeded quota: small', Reason.QUOTA_EXCEEDED),
        ('violates PodSecurity "restricted:latest": hostPath volumes', Reason.POD_SECURITY_VIOLATION),
    ],
)
def test_pods_that_are_refused(message: str, reason: Reason) -> None:
    world = started()
    world.pods = (pod(),)
    world.changes["refusals"] = {"digits-edge": message}
    world.settle()
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.STARTING, reason)
    assert says(world, Condition.STALLED) == ("True", reason)
    assert "group edge" in found["message"]
    assert world.events == [reason]


def test_what_may_pass_stalls_after_a_minute() -> None:
    world = started()
    world.pods = (unschedulable(),)
    plans = world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.UNSCHEDULABLE)
    assert says(world, Condition.STALLED) == ("False", Reason.AS_EXPECTED)
    assert plans[-1].wake_after is not None
    assert plans[-1].wake_after < 60
    world.now += timedelta(seconds=60)
    world.settle()
    assert says(world, Condition.STALLED) == ("True", Reason.UNSCHEDULABLE)


def test_one_event_a_transition_and_no_storm() -> None:
    world = up()
    for second in range(20):
        world.now += timedelta(seconds=2)
        world.pods = (pod(), ended(0, 1, "boom"), pod(1)) if second % 2 == 0 else FLEET
        world.settle()
    assert len(world.events) <= 2, world.events


# Children are kept.


@pytest.mark.parametrize("name", ["digits-aggregation", "digits-edge"])
def test_a_job_deleted_by_hand_comes_back(name: str) -> None:
    world = up()
    before = world.jobs.pop(name)
    world.settle()
    assert world.jobs[name] == before
    assert world.writes.count(f"create Job/{name}") == 1


@pytest.mark.parametrize("key", ["ConfigMap/digits-spec", "Service/digits-aggregation"])
def test_an_object_deleted_or_changed_by_hand_comes_back(key: str) -> None:
    world = up()
    before = world.objects.pop(key)
    world.settle()
    assert world.objects[key] == before
    part = "data" if key.startswith("ConfigMap") else "spec"
    world.objects[key][part] = {}
    world.settle()
    assert world.objects[key][part] == before[part]


def test_tokens_deleted_by_hand_come_back_the_same() -> None:
    world = up()
    before = world.secrets.pop("digits-worker-tokens")
    world.settle()
    assert world.secrets["digits-worker-tokens"] == before


def test_a_child_that_is_being_deleted_is_waited_for() -> None:
    world = up()
    world.views["digits-edge"] = {"deleting": True}
    assert world.plan().create == ()


def test_nothing_is_made_of_an_incomplete_look() -> None:
    world = up()
    world.jobs.pop("digits-edge")
    world.objects.clear()
    world.secrets.clear()
    world.changes["complete"] = False
    world.settle()
    assert not [write for write in world.writes if write.startswith(("create", "apply", "patch", "delete"))]


def test_what_is_not_ours_is_left_alone() -> None:
    world = up()
    world.objects.pop("Service/digits-aggregation")
    world.changes["foreign"] = ("Service/digits-aggregation",)
    world.settle()
    assert "apply Service/digits-aggregation" not in world.writes
    assert says(world, Condition.DEGRADED) == ("True", Reason.NAME_CONFLICT)


def test_a_namespace_that_goes_gets_nothing_new() -> None:
    world = up()
    world.jobs.pop("digits-edge")
    world.changes["namespace_terminating"] = True
    world.settle()
    assert "create Job/digits-edge" not in world.writes
    assert says(world, Condition.DEGRADED) == ("True", Reason.NAMESPACE_TERMINATING)


def test_an_operator_with_another_image_restarts_nothing() -> None:
    world = up()
    world.settings = replace(world.settings, image="engram-runtime:next")
    world.settle()
    assert world.writes == []


# Credentials.


def test_a_secret_that_was_deleted_is_made_anew_at_the_next_resume() -> None:
    world = up()
    old = world.objects["ConfigMap/digits-spec"]["data"][SpecKey.CA]
    key = world.secrets.pop("digits-credentials")["key"]
    world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.CREDENTIALS_LOST)
    assert says(world, Condition.STALLED)[0] == "False", "running pods go on"
    assert "digits-credentials" not in world.secrets
    assert world.objects["ConfigMap/digits-spec"]["data"][SpecKey.CA] == old
    assert "set spec.suspend to true" in status(world)["message"]
    assert world.raw is not None
    world.raw["spec"]["suspend"] = True
    world.pods = ()
    world.settle()
    assert world.secrets == {}, "not before the resume; tokens of the lost key are gone"
    world.raw["spec"]["suspend"] = False
    world.step()
    assert set(world.secrets) == {"digits-credentials", "digits-worker-tokens"}, "at once"
    world.settle()
    assert world.secrets["digits-credentials"]["key"] != key
    assert (
        world.objects["ConfigMap/digits-spec"]["data"][SpecKey.CA]
        == (world.secrets["digits-credentials"]["ca.crt"])
    )
    assert not any(job["spec"]["suspend"] for job in world.jobs.values())
    assert says(world, Condition.DEGRADED)[0] == "False"


def test_a_secret_that_is_deleted_while_the_run_rests() -> None:
    world = up()
    edit(world, suspend=True)
    world.settle()
    tokens = world.secrets["digits-worker-tokens"]
    world.secrets.pop("digits-credentials")
    edit(world, suspend=False)
    world.settle()
    assert world.secrets["digits-worker-tokens"] != tokens
    assert not any(job["spec"]["suspend"] for job in world.jobs.values())


def test_without_the_secret_nothing_derived_from_it_is_written() -> None:
    world = up(dataset={"partition": {"method": "local"}, "volume": {"hostPath": {"path": "/d"}}})
    world.secrets.pop("digits-credentials")
    world.objects.pop("ConfigMap/digits-spec")
    assert world.raw is not None
    world.raw["spec"]["workers"][0]["replicas"] = 3
    world.settle()
    assert not [write for write in world.writes if "Secret" in write or "ConfigMap" in write]
    assert world.jobs["digits-edge"]["spec"]["completions"] == 2


def test_a_group_does_not_grow_without_the_key_for_its_tokens() -> None:
    world = up(dataset=LOCAL)
    world.secrets.pop("digits-credentials")
    scale(world, 3)
    assert size(world) == (2, 2)
    assert len(world.secrets["digits-worker-tokens"]) == 2


def test_an_incomplete_look_does_not_take_the_loss_back() -> None:
    world = up()
    world.secrets.pop("digits-credentials")
    world.settle()
    world.changes["complete"] = False
    world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.CREDENTIALS_LOST)


# Edits.


def test_an_edit_of_an_opaque_part_is_ignored_and_said() -> None:
    world = up()
    before = copy.deepcopy((world.objects, world.jobs))
    edit(world, aggregator={**DURABLE, "podTemplate": {"spec": {"priorityClassName": "high"}}})
    world.settle()
    assert (world.objects, world.jobs) == before
    assert says(world, Condition.ACCEPTED) == ("True", Reason.SPEC_CHANGE_IGNORED)
    assert world.events == [Reason.SPEC_CHANGE_IGNORED]
    assert status(world)["observedGeneration"] == 2
    world.changes["complete"] = False
    world.settle()
    assert says(world, Condition.ACCEPTED) == ("True", Reason.SPEC_CHANGE_IGNORED)
    world.changes["complete"] = True
    edit(world, aggregator=DURABLE)
    world.settle()
    assert says(world, Condition.ACCEPTED) == ("True", Reason.VALID)


def test_an_edit_that_makes_the_spec_invalid_is_ignored_too() -> None:
    world = up()
    edit(world, algorithm={"name": "finetune", "parameters": {"nope": 1}})
    world.settle()
    assert says(world, Condition.ACCEPTED) == ("True", Reason.SPEC_CHANGE_IGNORED)
    assert "nope" in condition(status(world), Condition.ACCEPTED)["message"]
    assert status(world)["phase"] == Phase.RUNNING
    world.changes["complete"] = False
    world.pods = (pod(), ended(0, 1, "boom"), pod(1))
    world.settle()
    assert says(world, Condition.DEGRADED) == ("True", Reason.WORKER_FAILED)


def test_a_config_map_that_somebody_wrote_into_is_mended() -> None:
    world = up()
    world.objects["ConfigMap/digits-spec"]["data"][SpecKey.JOB] = "{"
    world.settle()
    assert world.objects["ConfigMap/digits-spec"]["data"][SpecKey.JOB] != "{"
    assert status(world)["phase"] == Phase.RUNNING


def test_what_may_change_changes_without_restarts() -> None:
    world = up()
    edit(world, runPolicy={"ttlSecondsAfterFinished": 60, "cleanPodPolicy": "All"})
    world.settle()
    assert [write for write in world.writes if "Job" in write] == []
    assert says(world, Condition.ACCEPTED) == ("True", Reason.VALID)


def scale(world: World, replicas: int) -> None:
    edit(world, workers=[{"name": "edge", "replicas": replicas}])
    world.settle()


def size(world: World) -> tuple[int, int]:
    spec = world.jobs["digits-edge"]["spec"]
    return spec["parallelism"], spec["completions"]


def test_a_local_group_grows_and_shrinks() -> None:
    world = up(dataset=LOCAL)
    scale(world, 4)
    assert size(world) == (4, 4)
    assert len(world.secrets["digits-worker-tokens"]) == 4
    assert '"replicas": 4' in world.objects["ConfigMap/digits-spec"]["data"][SpecKey.JOB]
    assert world.writes.index("apply Secret/digits-worker-tokens") < world.writes.index(
        "patch digits-edge ['completions', 'parallelism']"
    )
    assert status(world)["workers"]["desired"] == 4
    scale(world, 1)
    assert size(world) == (1, 1)
    assert says(world, Condition.ACCEPTED) == ("True", Reason.VALID)


def test_a_computed_split_rests_shares_and_grows_back_to_the_start() -> None:
    world = up(aggregation={"quorum": "50%"})
    scale(world, 1)
    assert size(world) == (1, 1)
    assert '"replicas": 2' in world.objects["ConfigMap/digits-spec"]["data"][SpecKey.JOB]
    assert status(world)["workers"]["desired"] == 1
    scale(world, 2)
    assert size(world) == (2, 2)


def test_a_computed_split_does_not_grow_beyond_the_start() -> None:
    world = up()
    scale(world, 3)
    assert size(world) == (2, 2)
    assert says(world, Condition.ACCEPTED) == ("True", Reason.SCALE_REFUSED)
    assert "at most 2" in condition(status(world), Condition.ACCEPTED)["message"]
    assert world.events == [Reason.SCALE_REFUSED]
    assert status(world)["workers"]["desired"] == 2


def test_a_group_deleted_by_hand_comes_back_at_its_present_size() -> None:
    world = up(aggregation={"quorum": "50%"})
    scale(world, 1)
    world.jobs.pop("digits-edge")
    world.settle()
    assert size(world) == (1, 1)


# Rest.


def test_suspend_and_resume() -> None:
    world = up()
    world.changes["live"] = live(round=9)
    world.settle()
    world.now += timedelta(seconds=100)
    edit(world, suspend=True)
    world.changes["live"] = None
    world.pods = ()
    world.settle()
    found = status(world)
    assert found["phase"] == Phase.SUSPENDED
    assert all(job["spec"]["suspend"] for job in world.jobs.values())
    assert found["progress"]["round"] == 9
    active = found["activeSeconds"]
    assert 100 <= active <= 115
    world.now += timedelta(hours=10)
    world.settle()
    assert status(world)["activeSeconds"] == active
    edit(world, suspend=False)
    world.settle()
    found = status(world)
    assert found["phase"] == Phase.STARTING
    assert not any(job["spec"]["suspend"] for job in world.jobs.values())
    assert says(world, Condition.SUSPENDED) == ("False", Reason.RESUMED)
    assert found["resumes"] == 1
    assert found["activeSeconds"] == active, "counted at the next rest"
    world.pods = FLEET
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING
    assert world.events.count(Reason.SUSPENDED) == 1
    world.now += timedelta(seconds=50)
    edit(world, suspend=True)
    world.settle()
    assert active + 50 <= status(world)["activeSeconds"] <= active + 60


def test_pods_that_are_still_going_when_a_rest_ends_are_not_the_run() -> None:
    world = up()
    edit(world, suspend=True)
    world.settle()
    edit(world, suspend=False)
    going = tuple(replace(pod, deleting=world.now) for pod in FLEET)
    world.pods, world.changes["live"] = going, live(round=9)
    plans = world.settle()
    assert status(world)["phase"] == Phase.STARTING
    assert not any(plan.poll for plan in plans), "it would be read what the one before says"
    world.pods, world.changes["live"] = (FLEET[0], *going[1:]), None
    world.settle()
    assert status(world)["phase"] == Phase.STARTING
    world.pods = FLEET
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING


def test_suspend_is_refused_without_a_durable_checkpoint() -> None:
    world = up(aggregator={})
    edit(world, suspend=True)
    world.settle()
    assert not any(job["spec"]["suspend"] for job in world.jobs.values())
    assert says(world, Condition.SUSPENDED) == ("False", Reason.CHECKPOINT_NOT_DURABLE)
    assert status(world)["phase"] == Phase.RUNNING
    assert world.events == [Reason.CHECKPOINT_NOT_DURABLE]


def test_a_job_deleted_after_suspend_was_refused_comes_back_awake() -> None:
    world = up(aggregator={})
    config = copy.deepcopy(world.objects["ConfigMap/digits-spec"])
    edit(world, suspend=True)
    world.jobs.pop("digits-edge")
    world.settle()
    assert world.jobs["digits-edge"]["spec"]["suspend"] is False
    assert not [write for write in world.writes if write.startswith("patch")], "made awake at once"
    assert world.objects["ConfigMap/digits-spec"] == config


def test_a_rested_run_has_no_deadline() -> None:
    world = up(runPolicy={"activeDeadlineSeconds": 60, "pendingDeadlineSeconds": 60})
    edit(world, suspend=True)
    world.pods = ()
    world.settle()
    world.now += timedelta(days=30)
    plan = world.step()
    assert plan.wake_after is None
    assert status(world)["phase"] == Phase.SUSPENDED
    edit(world, suspend=False)
    world.settle()
    assert status(world)["phase"] == Phase.STARTING


def test_a_job_deleted_while_the_run_rests_comes_back_with_the_run() -> None:
    world = up()
    edit(world, suspend=True)
    world.settle()
    world.jobs.pop("digits-edge")
    world.settle()
    assert "digits-edge" not in world.jobs
    edit(world, suspend=False)
    world.settle()
    assert world.jobs["digits-edge"]["spec"]["suspend"] is False


def test_a_node_port_that_cannot_be_worked_out_any_more_stays() -> None:
    world = World(job_object(aggregator={**DURABLE, "expose": {"type": "NodePort", "port": 30000}}))
    world.changes["nodes"] = (node("cloud", address="192.0.2.7"),)
    world.settle()
    world.changes["nodes"] = None
    world.writes.clear()
    world.settle()
    assert "apply ConfigMap/digits-spec" not in world.writes
    assert status(world)["aggregator"]["endpoint"] == "192.0.2.7:30000"


def test_the_pods_of_a_running_worker_tell_restarts_and_nodes() -> None:
    world = up()
    first = ended(0, 1, "boom", created=ago(300))
    world.pods = (pod(), replace(first, name="digits-edge-0-old"), pod(0), pod(1))
    world.settle()
    worker = next(item for item in status(world)["workerStatuses"] if item["name"].endswith("-0"))
    assert (worker["restarts"], worker["node"]) == (1, "edge0")
    assert says(world, Condition.DEGRADED)[0] == "False"


def test_a_worker_that_has_just_started_may_take_its_time() -> None:
    world = up()
    fresh = replace(pod(0), main=container(started=ago(-1000)))
    world.pods = (pod(), fresh, pod(1))
    world.changes["live"] = _ABSENT
    world.settle()
    assert says(world, Condition.DEGRADED)[0] == "False"
