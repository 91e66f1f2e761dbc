from __future__ import annotations

import pytest

from engram.learning.weighting import Weighting, update_weight


@pytest.mark.parametrize(("weighting", "expected"), [("used", 21), ("labelled", 14), ("uniform", 1)])
def test_by_rule(weighting: Weighting, expected: int) -> None:
    assert update_weight(weighting, labelled=10, exemplars=4, unlabelled=7) == expected


@pytest.mark.parametrize("weighting", ["used", "labelled", "uniform"])
def test_nothing_weighs_nothing(weighting: Weighting) -> None:
    assert update_weight(weighting, labelled=0, exemplars=0, unlabelled=0) == 0
