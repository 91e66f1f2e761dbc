"""The aggregator's last word: it fits a termination message and is found among other lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engram.spec.status import MetricsStatus, TaskStatus
from engram.spec.summary import FinalSummary

LIMIT = 4096


def summary(tasks: int = 5, message: str = "") -> FinalSummary:
    entries = [
        TaskStatus(
            index=number + 1,
            classes=[2 * number, 2 * number + 1],
            accuracy="0.9311",
            accuracy_now="0.8712",
            forget_rate="0.0412",
            seconds=12,
            bytes=10**9,
        ).dump()
        for number in range(tasks)
    ]
    return FinalSummary(
        outcome="complete",
        message=message,
        metrics=MetricsStatus(accuracy="0.9311", forget_rate="0.0412").dump(),
        tasks=entries,
        display={"task": f"{tasks}/{tasks}", "accuracy": "93.1%"},
        progress={"task": tasks, "tasks": tasks, "percent": 100},
        rounds=5 * tasks,
        resumes=1,
        workers={"desired": 3, "connected": 3},
        matrix=[[(t + 1) / (t + k + 3) for k in range(t + 1)] for t in range(tasks)],
    )


def test_a_small_summary_travels_whole() -> None:
    text = summary().encode()
    assert "\n" not in text
    assert len(text.encode()) <= LIMIT
    assert FinalSummary.decode(text) == summary()
    assert json.loads(text)["metrics"]["forgetRate"] == "0.0412"


@pytest.mark.parametrize(
    ("tasks", "matrix", "kept"), [(5, True, True), (20, False, True), (100, False, False)]
)
def test_the_matrix_goes_first_then_the_tasks(tasks: int, matrix: bool, kept: bool) -> None:
    text = summary(tasks).encode()
    assert len(text.encode()) <= LIMIT
    found = FinalSummary.decode(text)
    assert found is not None
    assert (found.matrix is not None, bool(found.tasks)) == (matrix, kept)
    assert (found.rounds, found.metrics) == (5 * tasks, summary(tasks).metrics)


@pytest.mark.parametrize("letter", ["x", '"', "ü", "\n", "\x00"])
def test_a_long_message_loses_its_end(letter: str) -> None:
    text = summary(100, message=letter * 10_000).encode()
    assert LIMIT - 8 <= len(text.encode()) <= LIMIT
    found = FinalSummary.decode(text)
    assert found is not None
    assert found.message.startswith(letter * 100)
    assert found.message.endswith("…")


def test_it_is_found_at_the_end_of_a_log() -> None:
    log = "\n".join(
        [
            'ut off in the middle","outcome":"complete"}',
            FinalSummary(outcome="suspended", exit_code=75).encode(),
            "round 1/5  task 1/5",
            f"  {summary().encode()} ",
            '{"outcome": "unheard of"}',
            '{"loss": 0.1}',
            "Traceback (most recent call last):",
            "",
        ]
    )
    assert FinalSummary.decode(log) == summary()


@pytest.mark.parametrize(
    "text", ["", "engram: error: no such file", "{}", "[1]", '{"outcome": 1}', "{" * 5000, '{"outcome"']
)
def test_anything_else_is_none(text: str) -> None:
    assert FinalSummary.decode(text) is None


def test_keys_of_a_later_version_are_ignored() -> None:
    later: dict[str, Any] = {"outcome": "failed", "message": "no", "exitCode": 42, "energyJoules": 12}
    found = FinalSummary.decode(json.dumps(later))
    assert found == FinalSummary(outcome="failed", message="no", exit_code=42)
