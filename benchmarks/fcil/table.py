"""Rows as a table: the runs of a variant at a label ratio, their means, and differences of two variants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.fcil.rows import Row
from benchmarks.fcil.statistics import Measured, Runs, best, beyond, paired, share_closed
from benchmarks.fcil.variants import BASELINES, CEILING, OURS, PSEUDO_REPLAY, VARIANTS, Variant
from engram.report.leaderboard import Statistic


@dataclass(frozen=True)
class Comparison:
    """Two variants that are to be compared; `rivals` stands for the best of them at each ratio."""

    ours: str
    rivals: tuple[str, ...]

    @property
    def title(self) -> str:
        """Return it in words."""
        rival = self.rivals[0] if len(self.rivals) == 1 else f"best of {', '.join(self.rivals)}"
        return f"{self.ours} - {rival}"


def comparisons(variants: Sequence[Variant] = VARIANTS) -> list[Comparison]:
    """Return what is compared: each of ours with what it must beat, and each ablation with the whole."""
    found = [
        Comparison("semifci", ("replay",)),
        Comparison(PSEUDO_REPLAY, ("replay",)),
        Comparison(OURS, BASELINES),
    ]
    found += [Comparison(variant.name, (variant.ablates,)) for variant in variants if variant.ablates]
    return found


class Table:
    """The rows of one benchmark."""

    def __init__(self, benchmark: str, rows: Iterable[Row]) -> None:
        self.benchmark = benchmark
        self.rows = [row for row in rows if row.benchmark == benchmark]

    @property
    def ratios(self) -> list[float]:
        """Label ratios, rising."""
        return sorted({row.label_ratio for row in self.rows})

    @property
    def variants(self) -> list[str]:
        """Names in the order of the table of variants."""
        order = {variant.name: place for place, variant in enumerate(VARIANTS)}
        names = {row.algorithm for row in self.rows}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    @property
    def processors(self) -> dict[str, list[str]]:
        """Processors with the variants that they ran, first the one with the most rows."""
        counts = Counter(row.cpu for row in self.rows)
        return {
            cpu: [name for name in self.variants if any(row.cpu == cpu for row in self._named(name))]
            for cpu, _ in counts.most_common()
        }

    def elsewhere(self, variant: str, ratio: float) -> bool:
        """Return whether rows of a variant were measured on another processor than most of the table."""
        ((usual, _),) = Counter(row.cpu for row in self.rows).most_common(1)
        return any(row.cpu != usual for row in self.of(variant, ratio))

    def of(self, variant: str, ratio: float) -> list[Row]:
        """Return the rows of a variant at a label ratio, by seed."""
        found = [row for row in self.rows if (row.algorithm, row.label_ratio) == (variant, ratio)]
        return sorted(found, key=lambda row: row.seed)

    def mean(self, variant: str, ratio: float, figure: str = "final_accuracy") -> Statistic:
        """Return mean, standard error and n of a figure of the rows."""
        return Statistic.of([getattr(row, figure) for row in self.of(variant, ratio)])

    def runs(self, variant: str, ratio: float) -> dict[int, Measured]:
        """Return the final accuracy of each seed with its split."""
        return {row.seed: Measured(row.final_accuracy, row.split) for row in self.of(variant, ratio)}

    def rival(self, comparison: Comparison, ratio: float) -> str:
        """Return the rival with the best mean at this ratio; empty when one of them was not measured."""
        found = {name: self.runs(name, ratio) for name in comparison.rivals}
        return best(found) if all(found.values()) else ""

    def difference(self, comparison: Comparison, ratio: float) -> Statistic | None:
        """Return the paired difference; None when one of the two was not measured.

        Raises UnpairedError when the two were measured on different splits.
        """
        ours, rival = self.runs(comparison.ours, ratio), self.rival(comparison, ratio)
        return paired(ours, self.runs(rival, ratio)) if ours and rival else None

    def gap(self, ratio: float) -> Statistic | None:
        """Return the paired difference of the ceiling and the best baseline; None where one is missing."""
        return self.difference(Comparison(CEILING, BASELINES), ratio)

    def closed(self, ratio: float, ours: str = OURS) -> Statistic | None:
        """Return the share of the gap from the best baseline to the ceiling that `ours` closes."""
        ends = self._ends(ratio, ours)
        return None if ends is None else share_closed(*ends)

    def beyond(self, ratio: float, share: float, ours: str = OURS) -> Statistic | None:
        """Return how far `ours` is above what closes `share` of that gap."""
        ends = self._ends(ratio, ours)
        return None if ends is None else beyond(*ends, share)

    def _named(self, variant: str) -> list[Row]:
        return [row for row in self.rows if row.algorithm == variant]

    def _ends(self, ratio: float, ours: str) -> tuple[Runs, Runs, Runs] | None:
        """Return the runs of `ours` and of both ends of the gap; None when one was not measured."""
        found, rival = self.runs(ours, ratio), self.rival(Comparison(ours, BASELINES), ratio)
        ceiling = self.runs(CEILING, ratio)
        return (found, self.runs(rival, ratio), ceiling) if found and rival and ceiling else None
