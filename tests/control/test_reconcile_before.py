"""Jobs that have not started: what keeps them from it, and their first objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engram.spec.job import JobSpec
from engram.spec.names import Condition, Phase, Reason
from engram_operator.model import Observed, Plan
from engram_operator.reconcile import reconcile
from engram_operator.reconcile.accept import undefaulted
from tests.control.builders import (
    CREDENTIALS,
    DURABLE,
    NOW,
    SETTINGS,
    condition,
    job_object,
    node,
    observed,
    stored,
    valid_status,
    with_status,
)
from tests.control.simulation import World


def plan_of(raw: dict[str, Any], seen: Observed | None = None) -> Plan:
    return reconcile(raw, CREDENTIALS, seen or observed(), SETTINGS, NOW)


def kinds(plan: Plan) -> list[str]:
    return [f"{item['kind']}/{item['metadata']['name']}" for item in (*plan.apply, *plan.create)]


def test_everything_is_made_at_once_and_startTime_set() -> None:
    plan = plan_of(job_object(aggregator=DURABLE))
    assert kinds(plan) == [
        "ConfigMap/digits-spec",
        "Service/digits-aggregation",
        "Secret/digits-worker-tokens",
        "Secret/digits-credentials",
        "Job/digits-aggregation",
        "Job/digits-edge",
    ]
    assert plan.status is not None
    assert plan.status["phase"] == Phase.STARTING
    assert plan.status["startTime"] == "2026-01-02T12:00:00Z"
    assert plan.status["aggregator"]["endpoint"].endswith(":7363")
    assert plan.status["display"] == {"workers": "0/2"}
    assert [(note.kind, note.reason) for note in plan.notes] == [("Normal", Reason.VALID)]
    valid_status(plan.status)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"algorithm": {"name": "nope"}}, ("spec.algorithm.name", "nope")),
        ({"algorithm": {"name": "finetune", "parameters": {"x": 1}}}, ("parameters", "x")),
        (
            {"workers": [{"name": "a", "podTemplate": {"spec": {"hostPID": True}}}]},
            ("hostPID",),
        ),
        (
            {"workers": [{"name": "a"}, {"name": "a"}]},
            ("spec.workers", "a"),
        ),
    ],
    ids=["unknown algorithm", "parameters the algorithm refuses", "podTemplate", "two groups of one name"],
)
def test_an_invalid_job_says_so_and_makes_nothing(spec: dict[str, Any], words: tuple[str, ...]) -> None:
    plan = plan_of(job_object(**spec))
    assert kinds(plan) == []
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["reason"]) == (Phase.FAILED, Reason.INVALID_SPEC)
    for kind, status in (
        (Condition.ACCEPTED, "False"),
        (Condition.FAILED, "True"),
        (Condition.STALLED, "True"),
        (Condition.RECONCILING, "False"),
    ):
        assert condition(plan.status, kind)["status"] == status
    for word in words:
        assert word in plan.status["message"]
    assert "startTime" not in plan.status
    assert "completionTime" not in plan.status
    assert [(note.kind, note.reason) for note in plan.notes] == [("Warning", Reason.INVALID_SPEC)]


def test_a_mended_job_goes_on() -> None:
    bad = job_object(algorithm={"name": "nope"})
    failed = with_status(bad, plan_of(bad))
    assert plan_of(failed).status is None, "told once"
    mended = {**job_object(generation=2), "status": failed["status"]}
    plan = plan_of(mended)
    assert len(plan.create) == 3
    assert plan.status is not None
    assert plan.status["phase"] == Phase.STARTING
    assert condition(plan.status, Condition.FAILED)["status"] == "False"


def test_an_object_that_is_invalid_is_told_once_however_often_it_is_looked_at() -> None:
    raw = job_object()
    refusal = {"digits-node-port": "Service is invalid: 80: provided port is not in the valid range"}
    told = with_status(raw, plan_of(raw, observed(refusals=refusal)))
    assert told["status"]["reason"] == Reason.INVALID_SPEC
    for seen in (observed(refusals=refusal), observed(complete=False)):
        plan = reconcile(told, None, seen, SETTINGS, NOW) if not seen.complete else plan_of(told, seen)
        assert (plan.status, plan.notes) == (None, ())


def test_nothing_is_made_of_an_incomplete_look() -> None:
    plan = reconcile(job_object(), None, observed(complete=False), SETTINGS, NOW)
    assert (plan.apply, plan.create, plan.status) == ((), (), None)


@pytest.mark.parametrize(
    ("seen", "spec", "reason", "words"),
    [
        (
            observed(namespace_terminating=True),
            {},
            Reason.NAMESPACE_TERMINATING,
            ("namespace lab", "another namespace"),
        ),
        (
            observed(foreign=("Service/digits-aggregation",)),
            {},
            Reason.NAME_CONFLICT,
            ("Service/digits-aggregation", "rename the job"),
        ),
        (
            observed(nodes=None),
            {"aggregator": {"expose": {"type": "NodePort", "port": 30000}}},
            Reason.ENDPOINT_UNKNOWN,
            ("spec.aggregator.expose.address",),
        ),
    ],
    ids=["namespace terminating", "name conflict", "endpoint unknown"],
)
def test_a_valid_job_that_cannot_start(
    seen: Observed, spec: dict[str, Any], reason: Reason, words: tuple[str, ...]
) -> None:
    plan = plan_of(job_object(**spec), seen)
    assert kinds(plan) == []
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["reason"]) == (Phase.PENDING, reason)
    assert condition(plan.status, Condition.ACCEPTED)["status"] == "False"
    assert condition(plan.status, Condition.STALLED)["status"] == "True"
    assert condition(plan.status, Condition.FAILED)["status"] == "False"
    for word in words:
        assert word in plan.status["message"]
    assert "startTime" not in plan.status
    assert [note.reason for note in plan.notes] == [reason]
    assert plan.wake_after is not None
    valid_status(plan.status)


def test_an_obstacle_that_is_gone_is_forgotten() -> None:
    raw = job_object()
    held = with_status(raw, plan_of(raw, observed(foreign=("Service/digits-aggregation",))))
    plan = plan_of(held)
    assert plan.status is not None
    assert plan.status["phase"] == Phase.STARTING
    assert condition(plan.status, Condition.STALLED)["status"] == "False"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('jobs.batch "digits-aggregation" is forbidden: exceeded quota: few', Reason.QUOTA_EXCEEDED),
        ('Job.batch "digits-aggregation" is invalid: spec.template: no', Reason.INVALID_SPEC),
        ('admission webhook "w" denied the request: no', Reason.POD_REFUSED),
    ],
)
def test_an_object_that_the_server_refuses_is_explained_and_tried_again(message: str, reason: Reason) -> None:
    plan = plan_of(job_object(), observed(refusals={"digits-aggregation": message}))
    assert len(plan.create) == 3, "it is tried again"
    assert plan.status is not None
    assert plan.status["reason"] == reason
    assert "startTime" not in plan.status, "the spec can still be edited"
    assert condition(plan.status, Condition.STALLED)["status"] == "True"
    valid_status(plan.status)


def test_node_port_that_kubernetes_chooses() -> None:
    raw = job_object(aggregator={"expose": {"type": "NodePort"}})
    seen = observed(nodes=(node("cloud", address="192.0.2.7"),))
    plan = plan_of(raw, seen)
    assert kinds(plan) == ["Service/digits-aggregation", "Service/digits-node-port"]
    assert plan.status is not None
    assert plan.status["phase"] == Phase.PENDING
    assert plan.wake_after is not None
    plan = plan_of(with_status(raw, plan), replace(seen, objects=stored(plan.apply)))
    assert "Job/digits-aggregation" in kinds(plan)
    assert plan.status is not None
    assert plan.status["aggregator"]["endpoint"] == "192.0.2.7:31234"


def test_a_job_created_suspended_makes_nothing_until_it_is_resumed() -> None:
    world = World(job_object(suspend=True))
    world.settle()
    assert world.writes == ["status", "event Suspended"]
    assert world.raw is not None
    assert world.raw["status"]["phase"] == Phase.SUSPENDED
    assert "startTime" not in world.raw["status"]
    world.raw["spec"]["suspend"] = False
    world.settle()
    assert world.raw["status"]["phase"] == Phase.STARTING
    assert "activeSeconds" not in world.raw["status"]
    assert condition(world.raw["status"], Condition.SUSPENDED)["reason"] == Reason.AS_EXPECTED


def test_a_job_created_suspended_is_validated() -> None:
    plan = plan_of(job_object(suspend=True, algorithm={"name": "nope"}))
    assert plan.status is not None
    assert plan.status["reason"] == Reason.INVALID_SPEC


def test_a_secret_of_ours_without_our_keys() -> None:
    plan = reconcile(job_object(), None, observed(secrets={"digits-credentials": ()}), SETTINGS, NOW)
    assert plan.create == ()
    assert plan.status is not None
    assert plan.status["reason"] == Reason.CREDENTIALS_LOST
    assert "delete it" in plan.status["message"]


@pytest.mark.parametrize(
    "raw",
    [
        job_object(managedBy="kueue.x-k8s.io/multikueue"),
        {
            **job_object(),
            "metadata": {**job_object()["metadata"], "deletionTimestamp": "2026-01-02T12:00:00Z"},
        },
    ],
    ids=["managed by another", "being deleted"],
)
def test_hands_off(raw: dict[str, Any]) -> None:
    assert plan_of(raw) == Plan()
    assert plan_of({**raw, "status": {"completionTime": "2026-01-02T11:00:00Z"}}) == Plan()


@pytest.mark.parametrize(
    ("aggregator", "reason"),
    [
        ({}, Reason.CHECKPOINT_NOT_DURABLE),
        ({"checkpoint": {"volume": {"emptyDir": {}}}}, Reason.CHECKPOINT_NOT_DURABLE),
        (DURABLE, Reason.VALID),
        ({"checkpoint": {"size": "1Gi"}}, Reason.VALID),
    ],
)
def test_a_checkpoint_that_dies_with_its_pod_is_said_beforehand(
    aggregator: dict[str, Any], reason: Reason
) -> None:
    plan = plan_of(job_object(aggregator=aggregator))
    accepted = condition(plan.status, Condition.ACCEPTED)
    assert (accepted["status"], accepted["reason"]) == ("True", reason)


@pytest.mark.parametrize(
    ("compression", "volume", "reason"),
    [
        ("none", {}, Reason.VALID),
        ("float16", {}, Reason.VALID),
        ("int8", {}, Reason.WORKER_STATE_NOT_DURABLE),
        ("topk", {"emptyDir": {}}, Reason.WORKER_STATE_NOT_DURABLE),
        ("topk", {"persistentVolumeClaim": {"claimName": "mine"}}, Reason.VALID),
    ],
)
def test_what_compression_owes_and_dies_with_a_pod_is_said_beforehand(
    compression: str, volume: dict[str, Any], reason: Reason
) -> None:
    workers = [{"name": "edge", "replicas": 2, "state": {"volume": volume}}]
    spec: dict[str, Any] = {"aggregation": {"compression": compression}, "workers": workers}
    accepted = condition(plan_of(job_object(aggregator=DURABLE, **spec)).status, Condition.ACCEPTED)
    assert (accepted["status"], accepted["reason"]) == ("True", reason)
    both = condition(plan_of(job_object(aggregator={}, **spec)).status, Condition.ACCEPTED)
    assert both["reason"] == Reason.CHECKPOINT_NOT_DURABLE
    assert ("dies with the pods of edge" in both["message"]) is (reason != Reason.VALID)


def test_a_crd_of_an_older_version_is_noticed_by_the_defaults_it_did_not_set() -> None:
    defaulted = JobSpec().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert undefaulted(defaulted) == ""
    assert undefaulted({}) == "", "not defaulted at all: no API server"
    old = {key: value for key, value in defaulted.items() if key != "evaluation"}
    assert undefaulted(old) == "spec.evaluation"
    old = {**defaulted, "training": {k: v for k, v in defaulted["training"].items() if k != "threads"}}
    assert undefaulted(old) == "spec.training.threads"
    worker = {k: v for k, v in defaulted["workers"][0].items() if k != "gpus"}
    assert undefaulted({**defaulted, "workers": [worker]}) == "spec.workers[].gpus"
    plan = plan_of({**job_object(), "spec": old})
    accepted = condition(plan.status, Condition.ACCEPTED)
    assert (accepted["status"], accepted["reason"]) == ("True", Reason.CRD_OUTDATED)
    assert "spec.training.threads" in accepted["message"]
