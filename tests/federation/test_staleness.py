from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.federation.messages import Tensors, Update
from engram.federation.staleness import Versions, discount


def model(value: float) -> Tensors:
    return {
        "w": np.full(3, value, np.float32),
        "norm.running_var": np.full(2, abs(value) + 0.5, np.float32),
        "steps": np.array(7, np.int64),
    }


def versions(*values: float, most: int = 3) -> Versions:
    made = Versions(most)
    for round, value in enumerate(values, 1):
        made.add(1, round, model(value))
    return made


def test_an_update_of_the_newest_version_stays_as_it_is() -> None:
    update = Update(1, 2, 5, model(9.0), {"loss": 0.5})
    brought = versions(0.0, 1.0).brought_forward(update)
    assert all(brought.weights[name] is array for name, array in update.weights.items())
    assert brought.metrics == {"loss": 0.5, "staleness": 0.0}


def test_a_stale_update_moves_the_newest_model_by_its_discounted_change() -> None:
    brought = versions(1.0, 10.0, 100.0, 1000.0).brought_forward(Update(1, 1, 5, model(3.0)))
    assert brought.metrics == {"staleness": 3.0}
    assert brought.weights["w"].tolist() == [1000.0 + 2.0 / 2] * 3  # 1 / sqrt(1 + 3) of 3 - 1
    assert brought.weights["w"].dtype == np.float32
    assert brought.weights["steps"] == 7


@given(st.integers(0, 100))
def test_the_discount_falls_from_one_and_stays_above_zero(staleness: int) -> None:
    assert discount(0) == 1.0
    assert 0.0 < discount(staleness + 1) < discount(staleness)


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=6),
    st.floats(-1e3, 1e3, width=32),
    st.data(),
)
def test_a_variance_stays_positive(values: list[float], sent: float, data: st.DataObject) -> None:
    base = data.draw(st.integers(1, len(values)))
    brought = versions(*values, most=10).brought_forward(Update(1, base, 5, model(sent)))
    assert (brought.weights["norm.running_var"] > 0).all()


def test_versions_that_nobody_may_use_any_more_are_dropped() -> None:
    kept = versions(1.0, 2.0, 3.0, most=1)
    kept.brought_forward(Update(1, 2, 5, model(0.0)))
    with pytest.raises(KeyError):
        kept.brought_forward(Update(1, 1, 5, model(0.0)))
    kept.add(2, 1, model(5.0))
    assert kept.brought_forward(Update(2, 1, 5, model(0.0))).metrics == {"staleness": 0.0}


def test_an_update_that_abstains_has_nothing_to_move() -> None:
    brought = versions(1.0, 2.0).brought_forward(Update(1, 1, 0))
    assert brought.weights == {}
    assert brought.metrics == {"staleness": 1.0}
