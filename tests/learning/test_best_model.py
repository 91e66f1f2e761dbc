"""Which model of a task becomes the old model of the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.learning.best_model import BestModel, check_counts, counted


def model(value: float) -> dict[str, NDArray[np.float32]]:
    return {"w": np.full(2, value, np.float32)}


def best_of(*judged: tuple[float, int, int]) -> list[float]:
    best = BestModel()
    for value, right, total in judged:
        best.propose(model(value))
        best.judge([(right, total)])
    return [float(array[0]) for array in best.settle().values()]


def test_largest_share_wins_whatever_its_place() -> None:
    assert best_of((1, 5, 10), (2, 9, 10), (3, 6, 10)) == [2]


def test_share_counts_and_not_the_number() -> None:
    assert best_of((1, 9, 10), (2, 50, 100)) == [1]


def test_of_equals_the_later_wins() -> None:
    assert best_of((1, 5, 10), (2, 10, 20)) == [2]


def test_sums_run_over_workers() -> None:
    best = BestModel()
    best.propose(model(1))
    best.judge([(1, 1), (0, 9)])  # a mean of the workers' shares would be 1/2
    best.propose(model(2))
    best.judge([(2, 10)])
    assert best.settle()["w"][0] == 2


def test_model_that_nobody_counted_is_not_kept() -> None:
    assert best_of((1, 0, 0)) == []


def test_is_reset_between_tasks() -> None:
    best = BestModel()
    best.propose(model(1))
    best.judge([(10, 10)])
    assert best.settle()["w"][0] == 1
    assert best.state() == {}
    best.propose(model(2))
    best.judge([(1, 10)])
    assert best.settle()["w"][0] == 2


def test_counts_before_any_model_tell_of_none() -> None:
    best = BestModel()
    assert not best.judge([(10, 10)])
    best.propose(model(1))
    assert best.judge([(0, 10)])


def test_keeps_models_by_value() -> None:
    best, weights = BestModel(), model(1)
    best.propose(weights)
    best.judge([(1, 2)])
    weights["w"][:] = 7
    assert best.settle()["w"].tolist() == [1, 1]


def test_survives_a_restart_in_the_middle_of_a_task() -> None:
    best, again = BestModel(), BestModel()
    best.propose(model(1))
    best.judge([(9, 10)])
    best.propose(model(2))
    again.restore(best.state())
    assert not again.judge([(8, 10)])
    assert again.settle()["w"][0] == 1
    again.restore(best.state())
    assert again.judge([(9, 10)])
    assert again.settle()["w"][0] == 2


@pytest.mark.parametrize(
    "array",
    [
        np.array([3, 2]),
        np.array([-1, 2]),
        np.array([1, 21]),
        np.array([1, 2, 3]),
        np.array([[1, 2]]),
        np.array([1.0, 2.0]),
        np.array([1, 2], np.int32),
    ],
)
def test_counts_that_cannot_be_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"right_of_total|samples"):
        check_counts({"right_of_total": array}, 20)


def test_counts_have_a_name_and_others_may_stand_beside_them() -> None:
    good = np.array([1, 20])
    for results in ({"right_of_total": good}, {"right_of_total": good, "x": good}):
        check_counts(results, 20)
        assert counted(results, 20) == (1, 20)
    for bad in ({}, {"x": good}):
        assert counted(bad, 20) is None
        with pytest.raises(ValueError, match="right_of_total"):
            check_counts(bad, 20)
