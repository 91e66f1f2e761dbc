"""Changes of the model are shortened to the limit, in their direction; what is within it stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engram.federation.clipping import clipped
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors
from engram.federation.tensors import BLOCK

values = st.floats(-100, 100, width=32)
arrays = npst.arrays(np.float32, (3, 4), elements=values)


def distance(one: Tensors, other: Tensors) -> float:
    return math.sqrt(sum(float(np.sum((one[n].astype(float) - other[n]) ** 2)) for n in ("a", "b")))


@given(model=st.tuples(arrays, arrays), update=st.tuples(arrays, arrays), limit=st.floats(0.01, 1000))
def test_the_distance_is_at_most_the_limit_and_the_direction_stays(
    model: Any, update: Any, limit: float
) -> None:
    before = {"a": model[0], "n": np.array(3), "b": model[1]}
    given_weights = {"a": update[0], "n": np.array(7), "b": update[1]}
    weights, norm = clipped(given_weights, before, limit)
    assert list(weights) == list(given_weights)
    if norm is None:
        assert weights is given_weights
        assert distance(given_weights, before) <= limit * (1 + 1e-9)
        return
    assert norm == pytest.approx(distance(given_weights, before))
    assert distance(weights, before) <= limit * (1 + 1e-6) + 1e-4  # the roundings to float32
    for name in ("a", "b"):
        wanted = before[name] + (update["ab".index(name)].astype(float) - before[name]) * limit / norm
        np.testing.assert_allclose(weights[name], wanted, rtol=1e-5, atol=1e-4)
        assert weights[name].dtype == np.float32
    assert weights["n"] == 7


def test_large_tensors_are_clipped_as_a_whole() -> None:
    model = {"w": np.zeros(2 * BLOCK + 5, np.float32)}
    weights, norm = clipped({"w": np.ones(2 * BLOCK + 5, np.float32)}, model, 1.0)
    assert norm == pytest.approx(math.sqrt(2 * BLOCK + 5))
    assert float(np.linalg.norm(weights["w"].astype(float))) == pytest.approx(1, rel=1e-5)


def test_without_a_limit_nothing_is_looked_at() -> None:
    weights = {"w": np.ones(3)}
    assert clipped(weights, {}, None) == (weights, None)


def test_a_run_with_clipping_says_what_was_clipped(make_federation: Callable[..., Any]) -> None:
    free, limited = (make_federation(aggregation={"clipNorm": limit}) for limit in (None, 0.01))
    outcomes = [run_in_process(item.aggregator(), item.workers(), lambda: False) for item in (free, limited)]
    rows = [outcome.history.rounds[0].workers["trainworker-edge-0"] for outcome in outcomes]
    assert "norm_before_clipping" not in rows[0].metrics
    assert rows[1].metrics["norm_before_clipping"] > 0.01
    assert not np.array_equal(outcomes[0].weights["head.weight"], outcomes[1].weights["head.weight"])
