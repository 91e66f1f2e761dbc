"""What an observer is told of a run, in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engram.federation.inprocess import run_in_process
from tests.federation.conftest import Federation

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
        return [("started", task, round), *evaluated, ("closed", task, round)]

    def end_of(task: int) -> list[tuple[Any, ...]]:
        return [("consolidates", task), ("evaluates", task, 0), ("task", task)]

    assert told == [
        *round_of(1, 1),
        *round_of(1, 2),
        *end_of(1),
        *round_of(2, 1),
        *end_of(2),
        ("finished", "complete"),
    ]
