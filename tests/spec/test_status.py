"""The status type: what the operator writes fits the CRD and stays small."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from engram.spec.crd import build_schema
from engram.spec.names import Condition, Phase, Reason
from engram.spec.status import (
    MOST_TASK_STATUSES,
    MOST_WORKER_STATUSES,
    ConditionStatus,
    Display,
    JobStatus,
    MetricsStatus,
    TaskStatus,
    WorkerStatus,
)

TIME = "2026-01-01T00:00:00Z"


def full(workers: int = MOST_WORKER_STATUSES, tasks: int = 20) -> JobStatus:
    return JobStatus(
        phase=Phase.RUNNING,
        reason=Reason.TRAINING,
        message="task 2 of 5",
        observed_generation=3,
        start_time=TIME,
        conditions=[
            ConditionStatus(
                type=kind,
                status="False",
                reason=Reason.AS_EXPECTED,
                message="x" * 80,
                last_transition_time=TIME,
            )
            for kind in Condition
        ],
        display=Display(task="2/5", round="3/25", workers="4/5", accuracy="93.1%", forgetting="4.2%"),
        worker_statuses=[
            WorkerStatus(name=f"trainworker-edge-{i}", group="edge", message="x" * 100, last_seen_time=TIME)
            for i in range(workers)
        ],
        metrics=MetricsStatus(accuracy="0.931", backward_transfer="-0.05"),
        tasks=[
            TaskStatus(index=i + 1, classes=[2 * i, 2 * i + 1], accuracy="0.9", seconds=12, bytes=10**9)
            for i in range(tasks)
        ],
    )


def test_a_status_round_trips_without_nulls() -> None:
    dumped = full().dump()
    assert JobStatus.model_validate(dumped) == full()
    assert "completionTime" not in dumped
    assert dumped["display"] == {
        "task": "2/5",
        "round": "3/25",
        "workers": "4/5",
        "accuracy": "93.1%",
        "forgetting": "4.2%",
    }


def test_its_keys_are_those_of_the_crd() -> None:
    def check(value: Any, schema: dict[str, Any]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                check(inner, schema["properties"][key])
        elif isinstance(value, list):
            assert len(value) <= schema["maxItems"]
            for item in value:
                check(item, schema["items"])

    check(full().dump(), build_schema()["properties"]["status"])


def test_a_full_status_stays_under_ten_kilobytes() -> None:
    assert len(json.dumps(full().dump(), separators=(",", ":"))) < 10_000


def test_lists_are_bounded() -> None:
    with pytest.raises(ValidationError, match="at most 20 items"):
        full(workers=MOST_WORKER_STATUSES + 1)
    with pytest.raises(ValidationError, match="at most 100 items"):
        full(tasks=MOST_TASK_STATUSES + 1)


@pytest.mark.parametrize("value", ["0.9", "-0.125", "1", "0"])
def test_measures_are_decimal_strings(value: str) -> None:
    assert MetricsStatus(accuracy=value).dump() == {"accuracy": value}


@pytest.mark.parametrize("value", ["1e-3", "nan", "", "0.", "93%"])
def test_other_texts_are_no_measures(value: str) -> None:
    with pytest.raises(ValidationError):
        MetricsStatus(accuracy=value)


def test_every_reason_and_condition_is_a_valid_one() -> None:
    for reason in Reason:
        for kind in reason.conditions:
            ConditionStatus(
                type=Condition(kind),
                status="True",
                reason=reason,
                message=reason.meaning,
                last_transition_time=TIME,
            )
