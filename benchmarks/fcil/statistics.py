"""Whether one algorithm is better than another: differences paired over the seeds that both ran.

A seed fixes the classes' order and who holds what, and splits differ far more from one another than
algorithms do on one split. So a difference is taken within each seed, and its standard error over seeds;
pairs whose splits differ are refused. Pure functions of numbers; shares are 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engram.report.leaderboard import Statistic

STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantiles of Student's t for 1 to 30 degrees of freedom (any table of it)."""


class UnpairedError(ValueError):
    """Two variants were not measured on the same splits, so their difference would say nothing."""


@dataclass(frozen=True)
class Measured:
    """One figure of one run, and the digest of the split that it was measured on."""

    value: float
    split: str


Runs = Mapping[int, Measured]
"""The runs of one variant, by seed."""


def common_seeds(*runs: Runs) -> list[int]:
    """Return the seeds that all have, sorted.

    Raises UnpairedError when there is none, or when the splits of one differ.
    """
    seeds = sorted(set.intersection(*(set(own) for own in runs)))
    if not seeds:
        raise UnpairedError("no seed in common")
    for seed in seeds:
        splits = {own[seed].split for own in runs}
        if len(splits) > 1:
            digests = " and ".join(sorted(digest[:12] for digest in splits))
            raise UnpairedError(f"the splits of seed {seed} differ: {digests}")
    return seeds


def paired(ours: Runs, theirs: Runs) -> Statistic:
    """Return mean and standard error of (ours - theirs) over common seeds: sd of the differences / sqrt(n).

    The standard deviation has n - 1; with one seed there is no error. Raises as `common_seeds`.
    """
    seeds = common_seeds(ours, theirs)
    return Statistic.of([ours[seed].value - theirs[seed].value for seed in seeds])


def interval(difference: Statistic) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean, mean -+ t(n - 1) * error; None for fewer than two values.

    With more than 31 values the quantile of 30 degrees of freedom is kept, which is a little too wide.
    """
    if difference.mean is None or difference.error is None:
        return None
    quantile = STUDENT[min(difference.n - 1, len(STUDENT)) - 1]
    return difference.mean - quantile * difference.error, difference.mean + quantile * difference.error


def stands_out(difference: Statistic, errors: float = 2.0) -> bool:
    """Return whether a mean is above so many of its standard errors; without an error nothing is known."""
    if difference.mean is None or difference.error is None:
        return False
    return difference.mean > errors * difference.error


def best(candidates: Mapping[str, Runs]) -> str:
    """Return the name of the candidate with the largest mean over the seeds that all have.

    Chosen by its mean and not seed by seed: the largest of several noisy figures of each seed would be a
    rival that nobody could have picked. The first named wins a tie. Raises as `common_seeds`.
    """
    seeds = common_seeds(*candidates.values())
    return max(candidates, key=lambda name: math.fsum(candidates[name][seed].value for seed in seeds))


def share_closed(ours: Runs, base: Runs, ceiling: Runs) -> Statistic:
    """Return which share of the gap from `base` to `ceiling` `ours` closes: 1 all of it, below 0 a step back.

    It is mean(ours - base) / mean(ceiling - base), a ratio of means, since ratios of single seeds explode
    where a gap is small. The standard error is the jackknife's: with r_i the ratio without seed i and r'
    their mean, sqrt((n - 1)/n * sum (r_i - r')^2) (Efron and Tibshirani 1993, equation 11.5). Without a gap
    there is no share (None). Raises as `common_seeds`.
    """
    seeds = common_seeds(ours, base, ceiling)
    gains = [ours[seed].value - base[seed].value for seed in seeds]
    gaps = [ceiling[seed].value - base[seed].value for seed in seeds]
    n = len(seeds)
    whole = _ratio(gains, gaps)
    if whole is None:
        return Statistic(None, None, n)
    without = [_ratio(_but(gains, index), _but(gaps, index)) for index in range(n)] if n > 1 else []
    ratios = [ratio for ratio in without if ratio is not None]
    if len(ratios) < max(n, 2):
        return Statistic(whole, None, n)
    centre = math.fsum(ratios) / n
    variance = (n - 1) / n * math.fsum((ratio - centre) ** 2 for ratio in ratios)
    return Statistic(whole, math.sqrt(variance), n)


def beyond(ours: Runs, base: Runs, ceiling: Runs, share: float) -> Statistic:
    """Return mean and standard error of how far `ours` is above the point that closes `share` of the gap from
    `base` to `ceiling`, paired by seed: ours - base - share (ceiling - base). Raises as `common_seeds`.

    It has an error of use where the gap is small and the share itself has none.
    """
    seeds = common_seeds(ours, base, ceiling)
    return Statistic.of(
        [
            ours[seed].value - base[seed].value - share * (ceiling[seed].value - base[seed].value)
            for seed in seeds
        ]
    )


def _ratio(gains: Sequence[float], gaps: Sequence[float]) -> float | None:
    gap = math.fsum(gaps)
    return math.fsum(gains) / gap if gap > 0 else None


def _but(values: Sequence[float], index: int) -> list[float]:
    return [*values[:index], *values[index + 1 :]]
