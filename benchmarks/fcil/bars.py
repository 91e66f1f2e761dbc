"""What the figures must reach, as data, and whether they do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from benchmarks.fcil.statistics import UnpairedError
from benchmarks.fcil.table import Comparison, Table
from benchmarks.fcil.variants import BASELINES, CEILING, FASHION, OURS, RATIOS, SCARCE
from engram.report.formats import number, share

Verdict = Literal["reached", "missed", "not measured"]

DIGITS = "digits"
WORDS = {"final_accuracy": "accuracy", "forget_rate": "forget rate"}


@dataclass(frozen=True)
class Judged:
    """A bar beside what was found."""

    benchmark: str
    bar: str
    found: str
    verdict: Verdict


class Bar(Protocol):
    """Something that a table reaches or misses."""

    @property
    def benchmark(self) -> str:
        """Name of the benchmark that it is about."""
        ...

    def judged(self, table: Table) -> Judged:
        """Return what the table says of it."""
        ...


@dataclass(frozen=True)
class Bound:
    """The mean of a figure over seeds is at least, or at most, a value."""

    benchmark: str
    variant: str
    ratio: float
    at_least: float | None = None
    at_most: float | None = None
    figure: str = "final_accuracy"

    def judged(self, table: Table) -> Judged:
        """Return what the table says of it."""
        least, most = self.at_least, self.at_most
        bound = f">= {share(least, 0)}" if least is not None else f"<= {share(most, 0)}"
        text = f"{self.variant}, {share(self.ratio, 0)} labels: {WORDS[self.figure]} {bound}"
        found = table.mean(self.variant, self.ratio, self.figure)
        if found.mean is None:
            return Judged(self.benchmark, text, "", "not measured")
        holds = (least is None or found.mean >= least) and (most is None or found.mean <= most)
        return Judged(
            self.benchmark, text, f"{share(found.mean)} (n {found.n})", "reached" if holds else "missed"
        )


@dataclass(frozen=True)
class Margin:
    """The mean paired difference is larger than so many of its standard errors (negative: not below)."""

    benchmark: str
    comparison: Comparison
    ratio: float
    errors: float

    def judged(self, table: Table) -> Judged:
        """Return what the table says of it; without a standard error nothing is proved."""
        than = "more than" if self.errors > 0 else "not below by more than"
        count = number(abs(self.errors), 0)
        text = f"{self.comparison.title}, {share(self.ratio, 0)} labels: {than} {count} standard errors"
        try:
            found = table.difference(self.comparison, self.ratio)
        except UnpairedError as reason:
            return Judged(self.benchmark, text, str(reason), "not measured")
        if found is None or found.mean is None or found.error is None:
            return Judged(self.benchmark, text, "", "not measured")
        shown = f"{number(100 * found.mean)} ± {number(100 * found.error)} points (n {found.n})"
        holds = found.mean > self.errors * found.error or (self.errors < 0 and found.mean >= 0)
        return Judged(self.benchmark, text, shown, "reached" if holds else "missed")


@dataclass(frozen=True)
class Gap:
    """At least this share of the gap from the best baseline to the ceiling is closed."""

    benchmark: str
    ratio: float
    at_least: float

    def judged(self, table: Table) -> Judged:
        """Return what the table says of it."""
        text = (
            f"{OURS}, {share(self.ratio, 0)} labels: at least {share(self.at_least, 0)} of the gap from "
            f"the best of {', '.join(BASELINES)} to {CEILING}"
        )
        try:
            gap, found = table.gap(self.ratio), table.beyond(self.ratio, self.at_least)
        except UnpairedError as reason:
            return Judged(self.benchmark, text, str(reason), "not measured")
        if gap is None or gap.mean is None or gap.mean <= 0 or found is None or found.mean is None:
            return Judged(self.benchmark, text, "", "not measured")
        error = "" if found.error is None else f" ± {number(100 * found.error)}"
        shown = f"{number(100 * found.mean)}{error} points above that (n {found.n})"
        return Judged(self.benchmark, text, shown, "reached" if found.mean >= 0 else "missed")


BARS: tuple[Bar, ...] = (
    Bound(FASHION, "finetune", 0.2, at_most=0.25),
    Bound(FASHION, "replay", 0.2, at_least=0.65),
    Bound(FASHION, "icarl", 0.2, at_least=0.70),
    Bound(FASHION, "icarl", 0.2, at_most=0.15, figure="forget_rate"),
    Bound(FASHION, "glfc", 0.2, at_least=0.60),
    Bound(FASHION, "glfc", 0.2, at_most=0.25, figure="forget_rate"),
    Bound(FASHION, "joint upfront", 0.2, at_least=0.72),
    Bound(FASHION, CEILING, 0.2, at_least=0.77),
    *(Margin(FASHION, Comparison("semifci", ("replay",)), ratio, -1.0) for ratio in RATIOS),
    *(Margin(FASHION, Comparison(OURS, BASELINES), ratio, 2.0) for ratio in SCARCE),
    *(Gap(FASHION, ratio, 0.5) for ratio in SCARCE),
    Bound(DIGITS, "icarl", 1.0, at_least=0.88),
    Bound(DIGITS, "glfc", 1.0, at_least=0.88),
)


def judge(table: Table, bars: Iterable[Bar] = BARS) -> list[Judged]:
    """Return the verdict on every bar of the table's benchmark."""
    return [bar.judged(table) for bar in bars if bar.benchmark == table.benchmark]
