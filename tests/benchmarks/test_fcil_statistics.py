"""Paired statistics, with numbers that were worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fcil.statistics import (
    Measured,
    Runs,
    UnpairedError,
    best,
    beyond,
    interval,
    paired,
    share_closed,
    stands_out,
)
from engram.report.leaderboard import Statistic


def runs(*values: float, split: str = "split") -> Runs:
    return {seed: Measured(value, f"{split} {seed}") for seed, value in enumerate(values)}


def test_the_mean_of_differences_has_the_error_of_the_differences_not_of_the_two_means() -> None:
    found = paired(runs(0.70, 0.80, 0.60), runs(0.68, 0.77, 0.59))
    # Differences .02, .03, .01: mean .02; deviations 0, .01, -.01; sd = sqrt(.0002 / 2) = .01.
    assert found.n == 3
    assert found.mean == pytest.approx(0.02)
    assert found.error == pytest.approx(0.01 / math.sqrt(3))


def test_the_interval_is_students() -> None:
    # Two degrees of freedom: 4.303 * .01 / sqrt(3) = .024843.
    found = interval(Statistic(0.02, 0.01 / math.sqrt(3), 3))
    assert found is not None
    assert found == pytest.approx((-0.004843, 0.044843), abs=1e-6)
    assert interval(Statistic(0.0, 1.0, 2)) == (-12.706, 12.706)
    assert interval(Statistic(0.0, 1.0, 31)) == (-2.042, 2.042)
    assert interval(Statistic(0.0, 1.0, 500)) == (-2.042, 2.042)


def test_one_seed_has_a_difference_and_no_error() -> None:
    found = paired(runs(0.7), runs(0.6))
    assert found.mean == pytest.approx(0.1)
    assert (found.error, found.n) == (None, 1)
    assert interval(found) is None


def test_only_seeds_that_both_have_are_compared() -> None:
    ours = {0: Measured(0.5, "a"), 1: Measured(0.9, "b"), 3: Measured(0.0, "d")}
    theirs = {1: Measured(0.8, "b"), 2: Measured(0.1, "c"), 0: Measured(0.5, "a")}
    found = paired(ours, theirs)
    assert found.mean == pytest.approx(0.05)
    assert found.n == 2
    with pytest.raises(UnpairedError, match="no seed in common"):
        paired({0: Measured(0.5, "a")}, {1: Measured(0.5, "a")})


def test_other_splits_are_no_pair() -> None:
    ours = {0: Measured(0.5, "a" * 16), 1: Measured(0.5, "b" * 16)}
    theirs = {0: Measured(0.5, "a" * 16), 1: Measured(0.5, "c" * 16)}
    with pytest.raises(UnpairedError, match="splits of seed 1 differ: bbbbbbbbbbbb and cccccccccccc"):
        paired(ours, theirs)
    with pytest.raises(UnpairedError, match="seed 1"):
        share_closed(ours, ours, theirs)
    with pytest.raises(UnpairedError, match="seed 1"):
        best({"ours": ours, "theirs": theirs})


def test_the_best_is_the_one_with_the_best_mean_not_the_best_of_each_seed() -> None:
    assert best({"replay": runs(0.9, 0.1), "icarl": runs(0.6, 0.6)}) == "icarl"
    assert best({"replay": runs(0.9, 0.5), "icarl": runs(0.6, 0.6)}) == "replay"
    assert best({"first": runs(0.5), "second": runs(0.5)}) == "first"


def test_the_share_of_the_gap_is_a_ratio_of_means_with_a_jackknife_error() -> None:
    base, ours, ceiling = runs(0.5, 0.5, 0.5), runs(0.6, 0.7, 0.5), runs(0.9, 0.9, 0.7)
    found = share_closed(ours, base, ceiling)
    # Gains .1, .2, 0; gaps .4, .4, .2: .3 / 1.0. Without each seed: .2/.6, .1/.6, .3/.8 = .33333, .16667,
    # .375; mean .29167; squares .0017361 + .015625 + .0069444 = .0243056; times 2/3 = .0162037; root .127294.
    assert found.mean == pytest.approx(0.3)
    assert found.error == pytest.approx(0.127294, abs=1e-6)
    assert found.n == 3
    single = share_closed(runs(0.6), runs(0.5), runs(0.9))
    assert single.mean == pytest.approx(0.25)
    assert (single.error, single.n) == (None, 1)


def test_how_far_above_a_share_of_the_gap_is_paired() -> None:
    base, ours, ceiling = runs(0.5, 0.5, 0.5), runs(0.6, 0.7, 0.5), runs(0.9, 0.9, 0.7)
    found = beyond(ours, base, ceiling, 0.5)
    # .1 - .2, .2 - .2, 0 - .1: deviations .0333, .0667, .0333 from -.0667; root of .00667 / 2, over root 3.
    assert found.mean == pytest.approx(-0.2 / 3)
    assert found.error == pytest.approx(1 / 30)
    assert beyond(ceiling, base, ceiling, 1.0).mean == pytest.approx(0)


@pytest.mark.parametrize(
    ("values", "stands"),
    [((1.0, 2.0, 3.0), True), ((0.0, 1.0, 2.0), False), ((-3.0, -2.0, -1.0), False), ((1.0,), False)],
)
def test_a_difference_stands_out_above_two_of_its_errors(values: tuple[float, ...], stands: bool) -> None:
    """Means 2 and 1 with errors 1 / sqrt 3 = .58, twice which is 1.15; one seed has no error."""
    assert stands_out(Statistic.of(values)) is stands


def test_without_a_gap_nothing_is_closed() -> None:
    assert share_closed(runs(0.6, 0.6), runs(0.5, 0.5), runs(0.5, 0.4)) == Statistic(None, None, 2)


shares = st.lists(st.floats(0, 1), min_size=2, max_size=8)


@given(shares, shares)
def test_the_difference_turns_its_sign_with_the_pair(one: list[float], other: list[float]) -> None:
    left, right = runs(*one), runs(*other)
    forth, back = paired(left, right), paired(right, left)
    assert forth.mean is not None
    assert back.mean is not None
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.error == pytest.approx(back.error) if forth.error is not None else back.error is None
    assert paired(left, left).mean == 0.0


@given(shares, st.floats(0.01, 1))
def test_the_ceiling_closes_all_of_the_gap_and_the_base_none(values: list[float], gap: float) -> None:
    base, ceiling = runs(*values), runs(*(value + gap for value in values))
    assert share_closed(ceiling, base, ceiling).mean == pytest.approx(1.0)
    assert share_closed(base, base, ceiling).mean == 0.0
