"""The workers' vectors on the aggregator: weights of the mean, newcomers, abstainers, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from engram.federation.messages import Tensors
from engram.learning.variates import Variates, moves


def vector(*values: float) -> Tensors:
    return {"w": np.array(values, np.float64)}


def test_the_mean_is_weighted_by_samples() -> None:
    variates = Variates(("a", "b"))
    assert variates.mean() == {}
    variates.put("a", 1, vector(1, 0))
    variates.put("b", 3, vector(5, 4))
    assert variates.mean()["w"].tolist() == [4, 3]


def test_who_was_not_sampled_yet_counts_as_zero_with_an_average_weight() -> None:
    # Algorithm 1 of scaffold: c moves by |S| / N times the mean of the sampled workers' changes.
    variates = Variates(("a", "b", "c", "d"))
    variates.put("a", 2, vector(1))
    variates.put("b", 2, vector(5))
    assert variates.mean()["w"].tolist() == [3 * 2 / 4]


def test_who_has_no_data_of_the_task_does_not_count() -> None:
    variates = Variates(("a", "b", "c"))
    variates.put("a", 2, vector(1))
    variates.put("b", 2, vector(5))
    variates.put("c", 2, vector(9))
    assert variates.mean()["w"].tolist() == [5]
    variates.abstain("c")
    assert variates.mean()["w"].tolist() == [3]
    assert variates.of("c") == {}


def test_a_worker_that_joined_later_counts() -> None:
    variates = Variates(("a",))
    variates.put("a", 1, vector(1))
    variates.put("newcomer", 1, vector(3))
    assert variates.mean()["w"].tolist() == [2]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_what_is_not_finite_leaves_the_old_vector(value: float) -> None:
    variates = Variates(("a",))
    variates.put("a", 1, vector(1))
    variates.put("a", 1, vector(value))
    assert variates.of("a")["w"].tolist() == [1]


def test_a_restart_changes_nothing_and_a_new_task_forgets_all() -> None:
    variates, other = Variates(("a", "b", "c")), Variates(("a", "b", "c"))
    variates.put("a", 2, {"w": np.ones(2), "features.0.weight": np.zeros((2, 1))})
    variates.abstain("b")
    other.restore(variates.state())
    assert {name: array.tolist() for name, array in other.mean().items()} == {
        "w": [0.5, 0.5],
        "features.0.weight": [[0], [0]],
    }
    other.clear()
    assert (other.mean(), other.of("a"), other.state()) == ({}, {}, {})


def test_moves_of_the_largest_float32_are_finite() -> None:
    most = np.array([np.finfo(np.float32).max], np.float32)
    assert np.isfinite(moves({"w": -most}, {"w": most, "n": most}, ("w",))["w"]).all()
