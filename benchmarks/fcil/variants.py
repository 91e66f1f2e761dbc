"""What is measured: the benchmarks, and the algorithms with their parameters. To add one, add a line.

A variant whose algorithm this version of engram does not have is left out, and the command says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engram.spec.parameters import ALGORITHMS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Variant:
    """An algorithm with its parameters, under the name that the tables give it."""

    name: str
    algorithm: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other fields below spec, such as {"aggregation.weighting": "labelled"}."""
    ablates: str = ""
    """Name of the variant that this one is without one of its parts; the table has their difference."""
    ratios: tuple[float, ...] = ()
    """Label ratios at which it is run; empty: at all of the benchmark's."""

    @property
    def known(self) -> bool:
        """Whether this version of engram has the algorithm."""
        return self.algorithm in ALGORITHMS


@dataclass(frozen=True)
class Benchmark:
    """A job file and what is varied of it."""

    name: str
    job: str
    """Below the repository."""
    ratios: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Those that figures are published for. A setting is chosen on others."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields below spec that the job file has otherwise."""
    needs: str = ""
    """What has to be installed, for the message when the data are not there."""

    def at(self, folder: str) -> Benchmark:
        """Return the benchmark with its data in `folder`."""
        return replace(self, settings={**self.settings, "dataset.path": folder})


RATIOS = (0.02, 0.05, 0.1, 0.2, 1.0)

BENCHMARKS = (
    Benchmark(
        "fashion-fcil-20",
        "examples/02-fashion-mnist.yaml",
        RATIOS,
        needs="the Debian package dataset-fashion-mnist",
    ),
    Benchmark(
        "two-datasets-20",
        "examples/09-two-datasets.yaml",
        (0.05, 0.2),
        needs="the Debian package dataset-fashion-mnist and MNIST (docs/benchmark.md)",
    ),
    Benchmark("digits", "examples/01-digits.yaml", (1.0,)),
)

OURS = "semifci"
"""The variant that stands for this project in the comparisons; chosen on seeds that are not published."""

PSEUDO_REPLAY = "replay + pseudo-labels"
CEILING = "joint upfront + pseudo-labels"
BASELINES = ("replay", "icarl")

VARIANTS = (
    Variant("finetune", "finetune"),
    Variant("fedprox", "fedprox"),
    Variant("fedlwf", "fedlwf"),
    Variant("fedewc", "fedewc"),
    Variant("replay", "replay"),
    Variant("replay, no weight alignment", "replay", {"weightAlignment": False}, ablates="replay"),
    Variant("icarl", "icarl"),
    Variant("icarl, no distillation", "icarl", {"strength": 0.0}, ablates="icarl"),
    Variant("joint", "joint"),
    Variant("joint upfront", "joint", {"upfront": True}),
    Variant("glfc", "glfc"),
    Variant("semifci", "semifci"),
)


def benchmark_called(name: str) -> Benchmark:
    """Return the benchmark of that name."""
    return next(benchmark for benchmark in BENCHMARKS if benchmark.name == name)


def chosen(names: Sequence[str], variants: Sequence[Variant] = VARIANTS) -> list[Variant]:
    """Return the variants called `names` in the table's order, all when there is none.

    Raises SystemExit for a name that the table does not have.
    """
    unknown = sorted(set(names) - {variant.name for variant in variants})
    if unknown:
        known = "; ".join(variant.name for variant in variants)
        raise SystemExit(f"no variant is called {', '.join(unknown)}; there are: {known}")
    return [variant for variant in variants if not names or variant.name in names]
