"""The in-process transport with a crew: all orders of a round at once, and otherwise the run that it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors, Train, Update
from engram.federation.roles import LocalLearner, Progress

MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]


class Crew:
    """Trains ahead, one after the other, what its members are then asked for."""

    def __init__(self, learners: Mapping[str, Any]) -> None:
        self.members: dict[str, LocalLearner] = {name: Member(own, self) for name, own in learners.items()}
        self.learners = learners
        self.made: dict[str, tuple[Train, Update]] = {}
        self.rounds: list[tuple[int, int, int]] = []
        """(task, round, workers) of each time it trained."""

    def train(self, orders: Mapping[str, Train], progress: Mapping[str, Progress]) -> None:
        assert orders.keys() == progress.keys()
        ((task, round),) = {(order.task, order.round) for order in orders.values()}
        self.rounds.append((task, round, len(orders)))
        for name, order in orders.items():
            self.made[name] = order, self.learners[name].train(order, progress[name])


class Member:
    """A worker that trains only what its crew has made."""

    def __init__(self, own: Any, crew: Crew) -> None:
        self._own, self._crew = own, crew

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def train(self, order: Train, progress: Progress) -> Update:
        asked, update = self._crew.made.pop(self._own.worker)
        assert asked is order
        return update


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        ({}, 3),
        ({"aggregation": {"clientFraction": 0.5}}, 2),
        ({"aggregation": {"compression": "topk", "topkShare": 0.2}}, 3),
        ({"evaluation": {"location": "workers", "every": "round"}}, 3),
        ({"workers": 1}, 1),
    ],
    ids=["all", "sampled", "compressed", "evaluated", "one"],
)
def test_a_crew_trains_each_round_once_and_nothing_else_changes(
    make_federation: MakeFederation, same_bits: SameBits, settings: dict[str, Any], workers: int
) -> None:
    plain = make_federation(**settings)
    wanted = run_in_process(plain.aggregator(), plain.workers(), lambda: False)
    federation = make_federation(**settings)
    crew = Crew(federation.workers())
    outcome = run_in_process(federation.aggregator(), crew.members, lambda: False, crew=crew)
    assert outcome.reason == "complete"
    assert crew.rounds == [(task, round, workers) for task in (1, 2) for round in (1, 2)]
    assert crew.made == {}
    assert same_bits(outcome.weights, wanted.weights)
    assert [row.workers for row in outcome.history.rounds] == [row.workers for row in wanted.history.rounds]


def test_a_crew_s_error_is_the_run_s(make_federation: MakeFederation) -> None:
    federation = make_federation()
    learners = federation.workers()
    crew = Crew(learners)

    def fail(order: Train) -> None:
        raise MemoryError("no room")

    next(iter(learners.values())).on_train = fail
    with pytest.raises(MemoryError, match="no room"):
        run_in_process(federation.aggregator(), crew.members, lambda: False, crew=crew)
