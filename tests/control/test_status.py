"""`.status` as a whole: conditions, phase, size, when it is written, what is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from engram.federation.sampling import Quorum
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import Condition, Phase, Reason, worker_name
from engram.spec.summary import FinalSummary
from engram_operator.model import Live
from engram_operator.reconcile import reconcile
from engram_operator.status import (
    Content,
    Statement,
    active_seconds,
    build_status,
    notes_of,
    phase_of,
    write_in,
)
from engram_operator.status.build import MOST_BYTES, size_of
from engram_operator.status.census import indexes
from engram_operator.status.conditions import merge, shorten, timestamp
from engram_operator.status.figures import figures_of
from engram_operator.status.finding import Finding
from engram_operator.status.situation import quorum_of
from engram_operator.status.standing import coming, complete, failed, held, invalid, refused, resting
from tests.control.builders import (
    CREDENTIALS,
    DURABLE,
    NOW,
    SETTINGS,
    ago,
    condition,
    ended,
    job_object,
    job_view,
    live,
    observed,
    pod,
    valid_status,
    with_status,
    workers_view,
)

YES = Statement(True, Reason.VALID)
OLD = [
    {
        "type": "Degraded",
        "status": "False",
        "reason": "AsExpected",
        "message": "Nothing is wrong.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    },
    {
        "type": "Accepted",
        "status": "True",
        "reason": "Valid",
        "message": "x",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    },
]


def test_conditions_are_merged_by_type() -> None:
    said = {
        Condition.ACCEPTED: Statement(True, Reason.SPEC_CHANGE_IGNORED, "ignored"),
        Condition.STALLED: Statement(True, Reason.INVALID_SPEC, "wrong"),
    }
    found = {item["type"]: item for item in merge(OLD, said, NOW, 2)}
    assert list(found) == ["Accepted", "Degraded", "Stalled"], "in the order of Condition, once each"
    assert found["Accepted"]["lastTransitionTime"] == "2026-01-01T00:00:00Z", "status did not change"
    assert (found["Accepted"]["reason"], found["Accepted"]["observedGeneration"]) == ("SpecChangeIgnored", 2)
    assert found["Stalled"]["lastTransitionTime"] == timestamp(NOW)
    assert found["Degraded"] == OLD[0], "what nothing is said of stays"


def test_a_transition_is_dated() -> None:
    said = {Condition.DEGRADED: Statement(True, Reason.WORKER_FAILED, "w")}
    (found, _) = sorted(merge(OLD, said, NOW, 1), key=lambda item: item["type"] != "Degraded")
    assert found["lastTransitionTime"] == timestamp(NOW)


def test_a_message_is_never_empty_nor_long() -> None:
    assert Statement(True, Reason.TRAINING).text == Reason.TRAINING.meaning
    assert len(Statement(True, Reason.TRAINING, "x" * 5000).text) == 800
    assert shorten("a\n  b", 10) == "a b"


@pytest.mark.parametrize(
    "statements",
    [
        invalid("x"),
        refused(Reason.NAME_CONFLICT, "x"),
        refused(Reason.ENDPOINT_UNKNOWN, "x"),
        refused(Reason.NAMESPACE_TERMINATING, "x"),
        coming(YES),
        resting(YES, "x"),
        complete("x"),
        *(
            failed(reason, "x")
            for reason in Reason
            if Condition.FAILED in reason.conditions
            and reason not in (Reason.NOT_FAILED, Reason.INVALID_SPEC)
        ),
    ],
)
def test_every_reason_belongs_to_its_condition(statements: dict[Condition, Statement]) -> None:
    for kind, said in statements.items():
        assert kind in said.reason.conditions, (kind, said.reason)
    yes = {kind for kind, said in statements.items() if said.true}
    assert not {Condition.COMPLETE, Condition.FAILED} <= yes
    assert not {Condition.READY, Condition.RECONCILING} <= yes
    assert not {Condition.STALLED, Condition.RECONCILING} <= yes


@pytest.mark.parametrize(
    ("statements", "started", "phase"),
    [
        (coming(YES), False, Phase.PENDING),
        (coming(YES), True, Phase.STARTING),
        ({**coming(YES), Condition.PROGRESSING: Statement(True, Reason.TRAINING)}, True, Phase.RUNNING),
        (resting(YES, "x"), True, Phase.SUSPENDED),
        (complete("x"), True, Phase.SUCCEEDED),
        (failed(Reason.RUN_FAILED, "x"), True, Phase.FAILED),
        (invalid("x"), False, Phase.FAILED),
        (refused(Reason.NAME_CONFLICT, "x"), False, Phase.PENDING),
    ],
)
def test_the_phase_is_derived(statements: dict[Condition, Statement], started: bool, phase: Phase) -> None:
    status = build_status({}, statements, Content(started=NOW if started else None), NOW, 1)
    assert status["phase"] == phase
    assert phase_of(status) is phase
    valid_status(status)


def test_what_is_held_up_says_why() -> None:
    found = held(YES, Finding(Reason.QUOTA_EXCEEDED, "no room", "digits-edge"))
    status = build_status({}, found, Content(), NOW, 1)
    assert (status["phase"], status["reason"]) == (Phase.PENDING, Reason.QUOTA_EXCEEDED)


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ({}, 0),
        ({"startTime": timestamp(ago(60))}, 60),
        ({"startTime": timestamp(ago(60)), "activeSeconds": 100}, 160),
        ({"startTime": timestamp(ago(60)), "activeSeconds": 100, "completionTime": timestamp(NOW)}, 100),
    ],
)
def test_active_seconds(status: dict[str, Any], seconds: float) -> None:
    assert active_seconds(status, NOW) == seconds


@pytest.mark.parametrize(
    ("suspended", "since", "seconds"),
    [("True", 10, 40), ("False", 10, 50), ("False", 500, 100), ("False", 60, 100)],
)
def test_active_seconds_over_suspensions(suspended: str, since: float, seconds: float) -> None:
    item = {"type": "Suspended", "status": suspended, "lastTransitionTime": timestamp(ago(since))}
    status = {"startTime": timestamp(ago(60)), "activeSeconds": 40, "conditions": [item]}
    assert active_seconds(status, NOW) == seconds


# Size.


def test_a_status_stays_small_with_1000_workers_and_100_tasks() -> None:
    raw = job_object(
        aggregator=DURABLE, workers=[{"name": "edge", "replicas": 1000}], aggregation={"quorum": "50%"}
    )
    raw["status"] = {"startTime": timestamp(ago(60))}
    words = "ä" * 900
    summary = {
        "tasks": [
            {"index": index, "classes": list(range(100)), "accuracy": "0.9312", "accuracyNow": "0.8121"}
            for index in range(1, 101)
        ],
        "workerStatuses": [
            {"name": worker_name("edge", index), "state": "disconnected", "device": "cuda:0", "round": 3}
            for index in range(20)
        ],
    }
    seen = observed(
        [job_view(), workers_view(1000)],
        [pod(), *(ended(index, 1, words, node=f"node-{index:060}") for index in range(1000))],
        live=live(connected=0, desired=1000, **summary),  # type: ignore[arg-type]
    )
    plan = reconcile(raw, CREDENTIALS, replace(seen, complete=False), SETTINGS, NOW)
    assert plan.status is not None
    assert size_of(plan.status) <= MOST_BYTES
    found = valid_status(plan.status)
    assert 5 <= len(found.worker_statuses) <= 20
    assert len(found.tasks) >= 10
    assert found.tasks[-1].index == 100, "the newest are kept"
    assert plan.status["workers"]["desired"] == 1000


def test_workers_that_are_not_fine_come_first_and_at_most_20() -> None:
    raw = job_object(aggregator=DURABLE, workers=[{"name": "edge", "replicas": 50}])
    raw["status"] = {"startTime": timestamp(ago(60))}
    pods = [pod(index) for index in range(50)]
    pods[40], pods[41] = ended(40, 75), ended(41, 43, "no data")
    seen = observed([job_view(), workers_view(50)], [pod(), *pods], complete=False)
    plan = reconcile(raw, None, seen, SETTINGS, NOW)
    assert plan.status is not None
    names = [item["name"] for item in plan.status["workerStatuses"]]
    assert len(names) == 20
    assert names[:2] == ["trainworker-edge-41", "trainworker-edge-40"], "worst first"


# Figures.

_HOSTILE: list[Any] = [
    None,
    [],
    "text",
    {"metrics": {"accuracy": "NaN", "forgetRate": "0.5"}},
    {"metrics": []},
    {"progress": {"round": -1, "rounds": 10, "percent": 400}},
    {"display": {"task": "x" * 5000}},
    {"tasks": [{"classes": [1]}, {"index": 1, "classes": ["a"]}, 7, None]},
    {"workerStatuses": [{"name": ""}, {"state": "odd"}, {"name": "w", "state": "odd", "round": 2}]},
    {"workers": {"connected": "many"}, "faults": 7},
    {"faults": {"resumes": "x"}},
]


@pytest.mark.parametrize("said", _HOSTILE)
def test_what_a_pod_says_never_spoils_the_status(said: Any) -> None:
    given = live()
    status = said if not isinstance(said, dict) else {**given.status, **said}
    if not isinstance(status, dict):
        status = {"progress": status, "metrics": status, "workers": status, "tasks": status, "faults": status}
    raw = job_object(aggregator=DURABLE)
    raw["status"] = {"startTime": timestamp(ago(60))}
    seen = observed(
        [job_view(), workers_view()], [pod(), pod(0), pod(1)], live=Live(status, NOW), complete=False
    )
    plan = reconcile(raw, None, seen, SETTINGS, NOW)
    assert plan.status is not None
    valid_status(plan.status)


def test_good_parts_are_kept_beside_bad_ones() -> None:
    given = live()
    said = {**given.status, "metrics": {"accuracy": "NaN", "forgetRate": "0.5", "other": "1"}}
    figures = figures_of({}, Live(said, NOW))
    assert figures.metrics == {"forgetRate": "0.5"}
    assert "secondsLeft" not in figures.progress


def test_the_summary_wins_over_what_was_live() -> None:
    summary = FinalSummary(outcome="complete", metrics={"accuracy": "1.0"}, resumes=3)
    figures = figures_of({"resumes": 5, "display": {"task": "1/5"}}, live(), summary)
    assert figures.metrics == {"accuracy": "1.0"}
    assert figures.display == {"task": "1/5"}, "kept where the summary says nothing"
    assert figures.resumes == 5, "never less than it was"


# When it is written.


def status_of(**changes: Any) -> dict[str, Any]:
    statements = {**coming(YES), Condition.PROGRESSING: Statement(True, Reason.TRAINING)}
    content = Content(
        started=NOW,
        display={"round": "3/25"},
        progress={"round": 3, "percent": 10, "estimatedCompletionTime": "2026-01-02T13:00:00Z"},
        workers={"desired": 2, "running": 2, "failed": 0},
        worker_statuses=({"name": "w", "state": "training"},),
    )
    return build_status({}, statements, replace(content, **changes), NOW, 1)


@pytest.mark.parametrize(
    ("changes", "worth"),
    [
        ({}, False),
        ({"progress": {"round": 3, "percent": 10, "estimatedCompletionTime": "x"}}, False),
        ({"worker_statuses": ({"name": "w", "state": "uploading", "lastSeenTime": "x"},)}, False),
        ({"display": {"round": "4/25"}}, True),
        ({"progress": {"round": 3, "percent": 11}}, True),
        ({"resumes": 1}, True),
        ({"workers": {"desired": 2, "running": 1, "failed": 1}}, True),
        ({"worker_statuses": ({"name": "w", "reason": "OutOfMemory"},)}, True),
    ],
)
def test_what_is_worth_a_write(changes: dict[str, Any], worth: bool) -> None:
    assert write_in(status_of(), status_of(**changes), NOW) == (0.0 if worth else None)


def test_counts_of_a_job_that_comes_up_wait_for_news() -> None:
    def starting(reason: Reason, running: int) -> dict[str, Any]:
        statements = {**coming(YES), Condition.PROGRESSING: Statement(False, reason)}
        content = Content(started=NOW, workers={"desired": 2, "running": running, "failed": 0})
        return build_status({}, statements, content, NOW, 1)

    old, new = starting(Reason.WAITING_FOR_AGGREGATOR, 0), starting(Reason.WAITING_FOR_WORKERS, 1)
    assert write_in(old, new, NOW) == 30.0
    assert write_in(old, new, NOW + timedelta(seconds=10)) == 20.0
    assert write_in(old, new, NOW + timedelta(seconds=30)) == 0.0
    assert write_in(old, starting(Reason.UNSCHEDULABLE, 0), NOW) == 0.0


# What is told.


def test_events_are_told_once() -> None:
    first = build_status({}, coming(YES), Content(started=NOW), NOW, 1)
    assert [note.reason for note in notes_of({}, first, NOW)] == [Reason.VALID]
    assert notes_of(first, first, NOW) == ()


def test_waiting_is_not_told() -> None:
    first = build_status({}, coming(YES), Content(started=NOW), NOW, 1)
    later = build_status(
        first,
        {Condition.PROGRESSING: Statement(False, Reason.WAITING_FOR_WORKERS)},
        Content(started=NOW),
        NOW,
        1,
    )
    assert notes_of(first, later, NOW) == ()


@pytest.mark.parametrize(
    ("statements", "kind"),
    [
        (failed(Reason.DATA_ERROR, "x"), "Warning"),
        (complete("x"), "Normal"),
        (resting(YES, "x"), "Normal"),
        ({Condition.PROGRESSING: Statement(True, Reason.TRAINING)}, "Normal"),
        ({Condition.PROGRESSING: Statement(False, Reason.UNSCHEDULABLE, "x")}, "Warning"),
    ],
)
def test_the_kind_of_an_event(statements: dict[Condition, Statement], kind: str) -> None:
    first = build_status({}, coming(YES), Content(started=NOW), NOW, 1)
    later = build_status(first, statements, Content(started=NOW), NOW + timedelta(seconds=99), 1)
    assert [note.kind for note in notes_of(first, later, NOW)] == [kind]


# Small questions.


@pytest.mark.parametrize(
    ("text", "numbers"), [("", set()), ("3", {3}), ("0,2-4,9", {0, 2, 3, 4, 9}), ("0-1", {0, 1})]
)
def test_indexes(text: str, numbers: set[int]) -> None:
    assert indexes(text) == numbers


@pytest.mark.parametrize(
    ("quorum", "fraction", "start", "now", "needed"),
    [
        ("100%", 1.0, 10, 10, 10),
        ("80%", 1.0, 10, 10, 8),
        ("75%", 1.0, 3, 3, 3),
        (3, 1.0, 10, 10, 3),
        (3, 1.0, 10, 2, 2),
        ("100%", 0.5, 10, 10, 5),
        ("50%", 0.1, 10, 10, 1),
    ],
)
def test_quorum(quorum: int | str, fraction: float, start: int, now: int, needed: int) -> None:
    raw = job_object(
        workers=[{"name": "edge", "replicas": start}],
        aggregation={"quorum": quorum, "clientFraction": fraction},
    )
    assert quorum_of(FederatedIncrementalJob.model_validate(raw), now) == needed


@pytest.mark.parametrize(("quorum", "needed"), [("100%", 4), ("50%", 2), (3, 3)])
def test_the_quorum_of_asynchronous_rounds_is_over_their_buffer(quorum: int | str, needed: int) -> None:
    raw = job_object(
        workers=[{"name": "edge", "replicas": 10}], aggregation={"quorum": quorum, "buffer": {"size": 4}}
    )
    assert quorum_of(FederatedIncrementalJob.model_validate(raw), 10) == needed


def test_the_quorum_is_that_of_the_federation() -> None:
    for quorum in (1, 2, "1%", "33%", "50%", "67%", "100%"):
        for workers in range(1, 12):
            raw = job_object(workers=[{"name": "edge", "replicas": workers}], aggregation={"quorum": quorum})
            job = FederatedIncrementalJob.model_validate(raw)
            assert quorum_of(job, workers) == Quorum.parse(quorum).of(workers)


def test_a_status_written_is_not_written_again() -> None:
    raw = job_object(aggregator=DURABLE)
    raw["status"] = {"startTime": timestamp(ago(60))}
    seen = observed([job_view(), workers_view()], [pod(), pod(0), pod(1)], complete=False)
    plan = reconcile(raw, None, seen, SETTINGS, NOW)
    again = reconcile(with_status(raw, plan), None, seen, SETTINGS, NOW + timedelta(seconds=5))
    assert plan.status is not None
    assert again.status is None
    assert condition(plan.status, Condition.PROGRESSING)["status"] == "True"
