"""The design's test vector, and a small history in the shape that an aggregator makes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from engram.federation.history import Counts, History, RoundRow, TaskRow, WorkerRound

VECTOR: dict[str, Any] = {
    "classes": [[0, 1], [2, 3], [4, 5]],
    "counts": {str(label): 100 for label in range(6)},
    "accuracy": [
        {"0": 0.60, "1": 0.80},
        {"0": 1.00, "1": 0.60, "2": 0.80, "3": 0.90},
        {"0": 0.40, "1": 0.60, "2": 0.95, "3": 0.85, "4": 0.70, "5": 0.90},
    ],
    "initial": [0.10, 0.12, 0.08],
    "unseen": {"1,2": 0.14, "1,3": 0.05, "2,3": 0.20},
}

WORKERS = ("trainworker-edge-0", "trainworker-edge-1")


@pytest.fixture
def vector() -> dict[str, Any]:
    """Return a copy of the test vector's document, free to change."""
    return copy.deepcopy(VECTOR)


def build_history(tasks: int = 3, rounds: int = 2) -> History:
    """Return a history of `tasks` finished tasks of two classes; right predictions fall with age."""
    history = History()
    for task in range(1, tasks + 1):
        total = dict.fromkeys(range(2 * task), 20)
        right = {label: 20 - 3 * (task - 1 - label // 2) - label % 2 for label in total}
        for number in range(1, rounds + 1):
            history.rounds.append(
                RoundRow(
                    task=task,
                    round=number,
                    started=1000.0 + 10 * len(history.rounds),
                    seconds={"broadcast": 0.1, "train": 3.0, "upload": 0.2},
                    workers={
                        name: WorkerRound(
                            outcome="accepted",
                            samples=10 * (place + 1),
                            metrics={"loss": 1.0 + place, "seconds": 2.5},
                            bytes_down=1000,
                            bytes_up=900,
                        )
                        for place, name in enumerate(WORKERS)
                    },
                )
            )
        history.tasks.append(
            TaskRow(
                task=task,
                classes=[2 * task - 2, 2 * task - 1],
                started=1000.0,
                seconds={"consolidate": 0.5, "evaluate": 0.3, "total": 8.0},
                counts=Counts(right=right, total=total),
                workers={name: WorkerRound(outcome="accepted", bytes_down=10) for name in WORKERS},
            )
        )
    return history


@pytest.fixture
def make_history() -> Callable[..., History]:
    return build_history
