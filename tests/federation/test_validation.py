from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engram.federation.messages import Consolidated, Tensors, Update
from engram.federation.settings import STATE_BYTES
from engram.federation.validation import Unfit, check_consolidated, check_update, finite_metrics

MODEL: Tensors = {"w": np.zeros((2, 3), np.float32), "n": np.array(0)}
GOOD = {"w": np.ones((2, 3), np.float32), "n": np.array(7)}


def with_w(value: Any) -> Tensors:
    return {**GOOD, "w": value}


def spoilt(value: float) -> Tensors:
    array = np.ones((2, 3), np.float32)
    array[1, 2] = value
    return with_w(array)


def test_a_good_update_passes_and_so_does_one_that_abstains() -> None:
    check_update(Update(1, 1, 10, GOOD, info={"e": np.zeros(0)}), MODEL, 10)
    check_update(Update(1, 1, 0), MODEL, 10)


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (Update(1, 1, 0, GOOD), "protocol"),
        (Update(1, 1, -1, GOOD), "norm"),
        (Update(1, 1, 11, GOOD), "norm"),
        (Update(1, 1, 5), "shape"),
        (Update(1, 1, 5, {"w": GOOD["w"]}), "shape"),
        (Update(1, 1, 5, {**GOOD, "extra": GOOD["w"]}), "shape"),
        (Update(1, 1, 5, with_w(np.ones((3, 2), np.float32))), "shape"),
        (Update(1, 1, 5, with_w(np.ones(3, np.float32))), "shape"),
        (Update(1, 1, 5, with_w(np.ones((2, 3)))), "shape"),
        (Update(1, 1, 5, spoilt(np.nan)), "non-finite"),
        (Update(1, 1, 5, spoilt(np.inf)), "non-finite"),
        (Update(1, 1, 5, spoilt(-np.inf)), "non-finite"),
        (Update(1, 1, 5, GOOD, info={"sum": np.array([1.0, np.nan])}), "non-finite"),
        (Update(1, 1, 0, info={"sum": np.array([np.inf])}), "non-finite"),
    ],
)
def test_a_bad_update_is_refused_with_its_reason(update: Update, reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        check_update(update, MODEL, 10)
    assert caught.value.reason == reason


def test_a_state_blob_that_is_too_large_and_results_that_are_not_finite() -> None:
    check_consolidated(Consolidated(1, 1, {}, bytes(STATE_BYTES)), STATE_BYTES, 1)
    with pytest.raises(Unfit) as caught:
        check_consolidated(Consolidated(1, 1, {}, bytes(STATE_BYTES + 1)), STATE_BYTES, 1)
    assert caught.value.reason == "too-large"
    with pytest.raises(Unfit) as caught:
        check_consolidated(Consolidated(1, 1, {"sums": np.array([np.inf])}), STATE_BYTES, 1)
    assert caught.value.reason == "non-finite"


def test_metrics_that_are_not_finite_are_dropped() -> None:
    assert finite_metrics({"loss": 1, "nan": float("nan"), "inf": float("inf")}) == {"loss": 1.0}


def test_results_of_more_samples_than_the_worker_holds() -> None:
    with pytest.raises(Unfit, match="11 samples, but the worker said it holds 10") as caught:
        check_consolidated(Consolidated(1, 11), STATE_BYTES, 10)
    assert caught.value.reason == "norm"
