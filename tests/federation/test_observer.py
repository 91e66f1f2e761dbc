"""What an observer is told of a run, in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engram.federation.aggregator import Aggregator
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Train, Update
from engram.federation.roles import Progress
from engram.metrics.status import LiveStatus
from tests.federation.conftest import Federation, Head, LeastSquares

STAGES = ("started", "consolidates", "evaluates", "closed", "task", "finished")


@pytest.mark.parametrize("location", ["aggregator", "workers"])
@pytest.mark.parametrize("every", ["task", "round"])
def test_every_stage_is_told_before_it_is_done(
    make_federation: Callable[..., Federation], location: str, every: str
) -> None:
    federation = make_federation(rounds=(2, 1), evaluation={"location": location, "every": every})
    run_in_process(federation.aggregator(), federation.workers(), lambda: False)
    told = [event for event in federation.observer.events if event[0] in STAGES]

    def round_of(task: int, round: int) -> list[tuple[Any, ...]]:
        evaluated = [("evaluates", task, round)] if every == "round" else []
        return [("started", task, round), *evaluated]

    def end_of(task: int) -> list[tuple[Any, ...]]:
        return [("consolidates", task), ("evaluates", task, 0), ("task", task)]

    # A round is closed once it is durable, and its checkpoint is written beside what follows.
    assert [event for event in told if event[0] != "closed"] == [
        *round_of(1, 1),
        *round_of(1, 2),
        *end_of(1),
        *round_of(2, 1),
        *end_of(2),
        ("finished", "complete"),
    ]
    closed = [event for event in told if event[0] == "closed"]
    assert closed == [("closed", 1, 1), ("closed", 1, 2), ("closed", 2, 1)]
    for _, task, round in closed:
        place = told.index(("closed", task, round))
        assert told.index(round_of(task, round)[-1]) < place < told.index(("task", task))


def test_a_rejected_update_is_in_the_live_status_of_the_run(
    make_federation: Callable[..., Federation],
) -> None:
    federation = make_federation(rounds=(2, 2), aggregation={"quorum": 2})
    bad, *_ = federation.settings.workers
    live = LiveStatus([[0, 1], [2, 3]], [2, 2], [(name, "edge") for name in federation.settings.workers])
    seen: list[dict[str, Any]] = []

    class Spoilt(LeastSquares):
        """Sends what is not finite in the third round of the run."""

        def train(self, order: Train, progress: Progress) -> Update:
            update = super().train(order, progress)
            if (order.task, order.round) == (2, 2):
                seen.append(next(row for row in live.as_dict()["workerStatuses"] if row["name"] == bad))
            if (order.task, order.round) != (2, 1):
                return update
            weights = {**update.weights, "head.bias": np.full(4, np.nan, np.float32)}
            return replace(update, weights=weights)

    workers = {**federation.workers(), bad: Spoilt(bad)}
    aggregator = Aggregator(federation.settings, Head(2), None, live)
    assert run_in_process(aggregator, workers, lambda: False).reason == "complete"
    [row] = seen
    assert row["acceptedRound"] == 2, "the round that closed without it does not count"
    assert row["rejected"] == [
        {
            "reason": "non-finite",
            "count": 1,
            "round": 3,
            "message": "head.bias holds values that are not finite",
        }
    ]
    [after] = [row for row in live.as_dict()["workerStatuses"] if row["name"] == bad]
    assert (after["acceptedRound"], after["rejected"]) == (4, row["rejected"])
