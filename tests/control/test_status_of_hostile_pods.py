"""Whatever an aggregator says of itself: the API server takes the status that is made of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.spec.names import Rejection
from engram.spec.summary import FinalSummary
from engram_operator.model import Live, Object
from engram_operator.reconcile import reconcile
from engram_operator.status.conditions import timestamp
from engram_operator.status.said import readable, whole
from tests.control.builders import (
    DURABLE,
    NOW,
    SETTINGS,
    ago,
    ended,
    job_object,
    job_view,
    live,
    observed,
    pod,
    true,
    workers_view,
)
from tests.control.crd_schema import status_problems

TIMES = ["yesterday", "2026-01-02", "2026-01-02 12:00:00Z", "2026-13-02T12:00:00Z", "2026-01-02T12:00:00"]
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**30), 2**53 - 1, 2**53, 2**63, 2**31, -1]),
    st.floats(),
    st.text(),
    st.sampled_from([*TIMES, "\ud800", "x" * 2000, "数" * 2000, "1" * 40, "1.5\n"]),
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
TASK = {"index": 1, "classes": [1, 2], "accuracy": "0.5", "accuracyNow": "0.4", "seconds": 3, "bytes": 9}
WORKER = {
    "name": "trainworker-edge-0",
    "group": "edge",
    "state": "disconnected",
    "device": "cpu",
    "round": 3,
    "lastSeenTime": "2026-01-02T11:59:00Z",
    "memoryBytes": 5,
    "acceptedRound": 1,
    "rejected": [{"reason": str(Rejection.NORM), "message": "too far", "round": 3}],
}


def well_formed() -> Object:
    """All that an aggregator may say."""
    said = dict(live(workers=[WORKER, {**WORKER, "name": "trainworker-edge-1"}]).status)
    said |= {"aggregator": {"memoryBytes": 7}, "tasks": [TASK, {**TASK, "index": 2}], "stage": "training"}
    return copy.deepcopy(said)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return where something else could stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield (*path, key)
        yield from places(below, (*path, key))


PLACES = list(places(well_formed()))


def with_changes(changes: dict[tuple[Any, ...], Any]) -> Object:
    """Return what the aggregator says, with other things in some places; through JSON, as it comes."""

    def changed(value: Any, path: tuple[Any, ...]) -> Any:
        if path in changes:
            return changes[path]
        if isinstance(value, dict):
            return {key: changed(below, (*path, key)) for key, below in value.items()}
        if isinstance(value, list):
            return [changed(below, (*path, number)) for number, below in enumerate(value)]
        return value

    found: Object = json.loads(json.dumps(changed(well_formed(), ())))
    return found


def written(said: Object) -> Object:
    """Return the status of a running job whose aggregator says this."""
    raw = job_object(aggregator=DURABLE)
    raw["status"] = {"startTime": timestamp(ago(60))}
    seen = observed(
        [job_view(), workers_view()], [pod(), pod(0), pod(1)], live=Live(said, NOW), complete=False
    )
    plan = reconcile(raw, None, seen, SETTINGS, NOW)
    assert plan.status is not None
    return plan.status


def test_what_is_well_formed_is_all_told() -> None:
    status = written(well_formed())
    assert status_problems(status) == []
    assert status["aggregator"]["memoryBytes"] == 7
    assert [task["index"] for task in status["tasks"]] == [1, 2]
    assert {"memoryBytes", "lastSeenTime", "message"} <= status["workerStatuses"][0].keys()


@given(st.dictionaries(st.sampled_from(PLACES), ANYTHING, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_the_api_server_takes_the_status_whatever_a_pod_says(changes: dict[tuple[Any, ...], Any]) -> None:
    assert status_problems(written(with_changes(changes))) == []


@pytest.mark.parametrize("number", [True, 10**30, -1, 2**53, float("nan"), float("inf"), 1.5, "7", None])
def test_a_number_that_is_none_is_left_out(number: Any) -> None:
    said = well_formed() | {"faults": {"resumes": number}, "aggregator": {"memoryBytes": number}}
    status = written(said)
    assert "resumes" not in status
    assert "memoryBytes" not in status["aggregator"]


@pytest.mark.parametrize("key", ["lastSeenTime", "estimatedCompletionTime"])
@pytest.mark.parametrize("text", TIMES)
def test_a_time_that_is_none_is_left_out(key: str, text: str) -> None:
    said = well_formed()
    said["progress"]["estimatedCompletionTime"] = said["workerStatuses"][0]["lastSeenTime"] = text
    status = written(said)
    assert key not in (status["progress"] if key.startswith("est") else status["workerStatuses"][0])
    assert status_problems(status) == []


def test_a_task_that_comes_twice_is_told_once() -> None:
    said = well_formed() | {"tasks": [TASK, {**TASK, "index": 2}, {**TASK, "accuracy": "0.9"}]}
    assert [(task["index"], task["accuracy"]) for task in written(said)["tasks"]] == [(1, "0.9"), (2, "0.5")]


@given(ANYTHING)
def test_what_is_whole_and_readable_can_be_stored(said: Any) -> None:
    assert 0 <= whole(said) < 2**53
    assert type(whole(said)) is int
    readable(said).encode()


@given(resumes=st.integers(min_value=0), progress=st.dictionaries(st.sampled_from(["round", "task"]), LEAVES))
@settings(deadline=None)
def test_the_api_server_takes_the_status_whatever_a_last_word_says(resumes: int, progress: Object) -> None:
    word = FinalSummary(outcome="complete", message="数 " * 2000, resumes=resumes, progress=progress)
    text = json.dumps(word.model_dump(by_alias=True))  # as a foreign image may write it, lone surrogates too
    raw = job_object(aggregator=DURABLE)
    raw["status"] = {"startTime": timestamp(ago(60))}
    gone = ended(None, 0, text)
    done = job_view(conditions={"Complete": true()})
    plan = reconcile(raw, None, observed([done, workers_view()], [gone], complete=False), SETTINGS, NOW)
    assert plan.status is not None
    assert status_problems(plan.status) == []
