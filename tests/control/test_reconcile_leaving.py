"""A job that is deleted while a node of its is out of touch: what is said of the pods that stay."""

from __future__ import annotations

from typing import Any

import pytest

from engram.spec.names import Condition, Reason
from engram_operator.model import Object, Plan
from engram_operator.reconcile import reconcile
from engram_operator.status import view
from tests.control.builders import NOW, SETTINGS, ago, ended, job_object, node, observed, pod, with_status

LOST = node("edge1", ready=False, edge=True)


def deleted(status: dict[str, Any] | None = None) -> Object:
    raw = job_object()
    raw["metadata"]["deletionTimestamp"] = "2026-01-02T12:00:00Z"
    return {**raw, "status": status or {}}


def plan_of(raw: Object, *pods: Any, nodes: Any = (LOST,)) -> Plan:
    return reconcile(raw, None, observed(pods=pods, nodes=nodes), SETTINGS, NOW)


def test_pods_that_stay_on_a_lost_node_are_explained_with_the_way_out() -> None:
    staying = (pod(0, node="edge1", deleting=ago(9)), pod(1, node="edge1", deleting=ago(9)))

    plan = plan_of(deleted(), *staying)

    (note,) = plan.notes
    assert note.kind == "Warning"
    assert note.reason == Reason.DELETION_WAITS
    for words in (
        "node edge1, out of touch since 11:58:30 UTC, still has pod digits-edge-0-abcde and 1 more",
        "until the node is back, then it goes",
        "kubectl delete node edge1",
    ):
        assert words in note.message
    assert plan.status is not None
    degraded = view(plan.status, Condition.DEGRADED)
    assert degraded is not None
    assert degraded.true
    assert degraded.message == note.message
    assert plan == Plan(status=plan.status, notes=plan.notes), "nothing is made or removed any more"


def test_it_is_told_once() -> None:
    raw, staying = deleted(), pod(0, node="edge1", deleting=ago(9))
    first = plan_of(raw, staying)

    assert plan_of(with_status(raw, first), staying).notes == ()


@pytest.mark.parametrize(
    ("pods", "nodes"),
    [
        ((), (LOST,)),
        ((pod(0, node="edge1", deleting=ago(9)),), (node("edge1", edge=True),)),
        ((ended(0, 0, node="edge1"),), (LOST,)),
    ],
    ids=["none", "node well", "ended"],
)
def test_pods_that_go_by_themselves_are_no_news(pods: tuple[Any, ...], nodes: tuple[Any, ...]) -> None:
    assert plan_of(deleted(), *pods, nodes=nodes) == Plan()
