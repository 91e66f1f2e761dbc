"""The offset of compensation, worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.learning.compensation import LEAST, prevalence_offset
from engram.learning.context import TaskScope

SECOND = TaskScope(task=2, classes=(7, 8), seen=(0, 1, 2, 7, 8))
"""Three old classes and two new ones."""


@pytest.mark.parametrize(
    ("labelled", "exemplars", "unlabelled", "ratio"),
    [
        # 20 in 30 labelled images are of two new classes, 10 of three old ones: 1/3 each against 1/9.
        (20, 10, 0.0, 3),
        # With as many images without a label: (2/3 + 1) / 2 against 1/9; each counting half: 7/12.
        (20, 10, 1.0, 7.5),
        (20, 10, 0.5, 5.25),
        # Few labels: 2 in 32 are new, 1/32 each against 10/32.
        (2, 30, 0.0, 0.1),
        # No new sample at all: a thousandth is assumed.
        (0, 30, 0.0, 3 * LEAST / 2),
    ],
)
def test_new_classes_are_raised_by_how_much_more_often_they_come(
    labelled: int, exemplars: int, unlabelled: float, ratio: float
) -> None:
    found = prevalence_offset(SECOND, labelled, exemplars, unlabelled)
    assert found == pytest.approx(math.log(ratio))


def test_where_nothing_is_old_or_kept_nothing_is_compensated() -> None:
    first = TaskScope(task=1, classes=(7, 8), seen=(7, 8))
    assert prevalence_offset(first, 20, 0, 1.0) == 0
    assert prevalence_offset(SECOND, 20, 0, 1.0) == 0


@given(st.integers(1, 500), st.integers(1, 10))
def test_classes_that_come_equally_often_have_no_offset(each: int, old: int) -> None:
    scope = TaskScope(task=2, classes=(50, 51), seen=(*range(old), 50, 51))
    assert prevalence_offset(scope, 2 * each, old * each, 0.0) == pytest.approx(0, abs=1e-9)
