"""What only the aggregator's live status tells: answers that were turned down, and the end of a task."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from engram.federation.messages import Reject
from engram.metrics.status import LiveStatus
from engram.spec.names import Condition, Phase, Reason, Rejection
from engram_operator.model import Live
from engram_operator.patching import decisive
from engram_operator.status.rejections import Refused, explain_refused, recently_refused
from tests.control.builders import NOW, condition, live
from tests.control.simulation import FLEET, World, says, started, status, up

A, B = "trainworker-edge-0", "trainworker-edge-1"


def refused(reason: str, round: int, message: str = "why", count: int = 1) -> dict[str, Any]:
    return {"reason": reason, "count": count, "round": round, "message": message}


def worker(name: str = A, accepted: int = 0, *said: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "group": "edge", "state": "training", "acceptedRound": accepted}
    return {**found, "rejected": list(said)} if said else found


def seen(round: int, *workers: Mapping[str, Any], **changes: Any) -> Live:
    return live(round=round, workers=[*workers, worker(B, round - 1)], **changes)


RECENT: dict[str, tuple[dict[str, Any], int, Refused | None]] = {
    "nothing": (worker(), 7, None),
    "in the round that runs": (worker(A, 6, refused("norm", 7)), 7, Refused("norm", "why", 7)),
    "in the round before": (worker(A, 6, refused("norm", 7)), 8, Refused("norm", "why", 7)),
    "long ago, nothing counted since": (worker(A, 6, refused("norm", 7)), 20, Refused("norm", "why", 7)),
    "never counted": (worker(A, 0, refused("shape", 1)), 9, Refused("shape", "why", 1)),
    "one counted since, just now": (worker(A, 8, refused("norm", 7)), 8, Refused("norm", "why", 7)),
    "one counted since, two rounds ago": (worker(A, 8, refused("norm", 7)), 9, None),
    "late": (worker(A, 6, refused("late", 7)), 7, None),
    "duplicate": (worker(A, 6, refused("duplicate", 7)), 7, None),
    "unauthorised": (worker(A, 6, refused("unauthorised", 7)), 7, None),
    "late after not finite": (
        worker(A, 6, refused("late", 8), refused("non-finite", 7)),
        8,
        Refused("non-finite", "why", 7),
    ),
    "two reasons": (worker(A, 6, refused("shape", 7), refused("norm", 6)), 7, Refused("shape", "why", 7)),
}


@pytest.mark.parametrize(("said", "current", "expected"), RECENT.values(), ids=RECENT)
def test_which_refusals_are_told(said: dict[str, Any], current: int, expected: Refused | None) -> None:
    assert recently_refused([said], current).get(A) == expected


_ODD: list[Any] = [
    None,
    7,
    "text",
    {"name": A},
    [None, 7, {"name": 7}, {"rejected": 7}],
    [{"name": A, "rejected": 7}],
    [{"name": A, "rejected": [None, 7, {}, {"reason": 7}, {"reason": "late"}]}],
]


@pytest.mark.parametrize("said", _ODD)
def test_what_is_odd_is_left_out(said: Any) -> None:
    assert recently_refused(said, 3) == {}


def test_odd_numbers_and_words_are_no_failure() -> None:
    odd = {"name": A, "acceptedRound": "many", "rejected": [{"reason": "norm", "round": True, "message": 7}]}
    assert recently_refused([odd], 3) == {A: Refused("norm", "", 0)}


KNOWN = ("shape", "non-finite", "norm", "too-large", "protocol")


@pytest.mark.parametrize("reason", KNOWN)
def test_every_refusal_that_a_person_must_know_says_what_to_do(reason: str) -> None:
    found = explain_refused(A, Refused(Rejection(reason), "head.weight is odd." + " x" * 300, 7))
    assert found.reason is Reason.UPDATES_REJECTED
    assert found.sentence.startswith(f"{A}: its update of round 7 was rejected ({reason}: head.weight is odd")
    assert "delete the job and apply it anew with" in found.message
    assert len(found.message) < 500


def test_those_that_follow_a_reconnection_are_no_news() -> None:
    silent = {Rejection.LATE, Rejection.DUPLICATE, Rejection.UNAUTHORISED}
    assert {str(reason) for reason in Rejection} - set(KNOWN) == silent


def test_a_worker_whose_updates_are_rejected_degrades_the_run_until_later_ones_count() -> None:
    world = up()
    bad = refused("non-finite", 7, "head.weight holds values that are not finite", 2)
    for round, accepted, degraded in ((7, 6, True), (8, 6, True), (9, 8, False), (10, 9, False)):
        world.now += timedelta(seconds=90)
        world.changes["live"] = seen(round, worker(A, accepted, bad))
        world.settle()
        assert (says(world, Condition.DEGRADED)[1] == Reason.UPDATES_REJECTED) is degraded, round
        assert status(world)["phase"] == Phase.RUNNING
    assert world.events == [Reason.UPDATES_REJECTED, Reason.TRAINING], "one Event each way"


def test_status_names_the_worker_the_cause_and_the_mend() -> None:
    world = up()
    world.changes["live"] = seen(7, worker(A, 6, refused("shape", 7, "head.weight is float32(8, 4)")))
    world.settle()
    found = status(world)
    assert found["reason"] == Reason.UPDATES_REJECTED
    assert found["message"] == (
        f"{A}: its update of round 7 was rejected (shape: head.weight is float32(8, 4)) and does not count: "
        "the worker runs another model or algorithm: delete the job and apply it anew with images of the "
        "same code"
    )
    worst = found["workerStatuses"][0]
    assert (worst["name"], worst["state"], worst["reason"]) == (A, "training", Reason.UPDATES_REJECTED)
    assert says(world, Condition.STALLED)[0] == "False"
    assert says(world, Condition.PROGRESSING) == ("True", Reason.TRAINING)


def test_a_worker_that_is_gone_is_told_as_such() -> None:
    world = up()
    gone = {**worker(A, 6, refused("norm", 7)), "state": "disconnected"}
    world.changes["live"] = seen(7, gone, connected=1)
    world.settle()
    assert status(world)["workerStatuses"][0]["reason"] == Reason.WORKER_DISCONNECTED


def test_the_aggregators_words_are_the_operators() -> None:
    """The real live status, read by the operator."""
    real = LiveStatus([[0, 1], [2, 3]], [3, 3], [(A, "edge"), (B, "edge")])
    for name in (A, B):
        real.worker_changed(name, "connected")
    real.round_started(2, 1)
    real.rejected(A, Reject("norm", "too many samples", 2, 1))
    real.rejected(A, Reject("late", "not wanted", 2, 1))
    said = real.as_dict()
    assert recently_refused(said["workerStatuses"], said["progress"]["round"]) == {
        A: Refused("norm", "too many samples", 4)
    }


# The end of a task.


def consolidating(round: int = 5, **changes: Any) -> Live:
    return live(round=round, stage="consolidating", **changes)


def test_the_end_of_a_task_is_said() -> None:
    world = up()
    world.changes["live"] = consolidating()
    world.settle()
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.RUNNING, Reason.CONSOLIDATING)
    assert found["message"] == "Task 1 of 5 has ended: workers send what the algorithm keeps of it."
    for kind in (Condition.PROGRESSING, Condition.RECONCILING, Condition.READY):
        assert says(world, kind)[1] == Reason.CONSOLIDATING
    world.changes["live"] = live(round=6, stage="rounds")
    world.settle()
    assert status(world)["reason"] == Reason.TRAINING


def test_the_first_that_is_told_of_a_run_is_that_it_trains() -> None:
    world = started()
    world.pods, world.changes["live"] = FLEET, consolidating()
    world.step()
    assert status(world)["reason"] == Reason.TRAINING
    world.settle()
    assert status(world)["reason"] == Reason.CONSOLIDATING
    assert world.events == [Reason.TRAINING]


def test_a_hundred_tasks_make_no_event_and_no_write_before_its_time() -> None:
    world = up()
    for round in range(1, 100):
        for said in (live(round=round, stage="rounds"), consolidating(round), None):
            old = status(world)
            world.changes["live"] = said
            world.step()
            assert not decisive(old, status(world)), "it waits for its turn, as figures do"
    assert world.events == []


def test_a_run_that_recovers_into_the_end_of_a_task_tells_it_once() -> None:
    world = up()
    pods = world.pods
    world.pods = pods[1:]
    world.settle()
    world.now += timedelta(seconds=90)
    world.pods, world.changes["live"] = pods, consolidating()
    world.settle()
    world.changes["live"] = live(round=6, stage="rounds")
    plans = world.settle()
    assert world.events == [Reason.AGGREGATOR_RESTARTING, Reason.CONSOLIDATING]
    assert not any(plan.notes for plan in plans)


def test_what_is_wrong_comes_before_the_end_of_a_task() -> None:
    world = up()
    world.changes["live"] = consolidating(
        connected=1,
        workers=[{"name": A, "state": "disconnected"}, {"name": B, "state": "connected"}],
    )
    world.settle()
    assert status(world)["reason"] == Reason.QUORUM_NOT_REACHED
    assert says(world, Condition.PROGRESSING) == ("True", Reason.CONSOLIDATING)


def test_an_aggregator_that_is_not_heard_is_not_said_to_consolidate() -> None:
    world: World = up()
    world.changes["live"] = consolidating()
    world.settle()
    world.changes["live"] = None
    world.settle()
    assert condition(status(world), Condition.PROGRESSING)["reason"] == Reason.TRAINING


@pytest.mark.parametrize("stage", [None, 7, "", "gathering", "a stage of the future", ["consolidating"]])
def test_other_stages_are_training(stage: Any) -> None:
    world = up()
    world.changes["live"] = Live({**live().status, "stage": stage}, NOW)
    world.settle()
    assert status(world)["reason"] == Reason.TRAINING
