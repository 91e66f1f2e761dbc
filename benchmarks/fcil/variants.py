"""What is measured: the benchmarks, and the algorithms with their parameters. To add one, add a line.

A variant whose algorithm this version of engram does not have is left out, and the command says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engram.spec.algorithms import ALGORITHMS
from engram.spec.dotted import is_dotted

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Variant:
    """An algorithm with its parameters, under the name that the tables give it."""

    name: str
    algorithm: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other fields below spec, such as {"aggregation.weighting": "labelled"}."""
    all_labelled: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that are otherwise where every label is visible: there is nothing to guess then."""
    ablates: str = ""
    """Name of the variant that it is compared with, being that without a part or with an option; the table
    has their difference.
    """
    ratios: tuple[float, ...] = ()
    """Label ratios at which it is run; empty: at all of the benchmark's."""
    benchmarks: tuple[str, ...] = ()
    """Those that it is for; empty: all that do not choose their variants."""

    @property
    def known(self) -> bool:
        """Whether this version of engram has the algorithm, or it is a class of the benchmark's own."""
        return self.algorithm in ALGORITHMS or is_dotted(self.algorithm)

    @property
    def group(self) -> str:
        """What variants have in common whose differences are taken: the fields other than the algorithm."""
        return json.dumps(dict(self.settings), sort_keys=True)


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
    chosen: tuple[str, ...] = ()
    """Names of the variants that it takes, beside those that are for it; empty: all."""
    pictures: bool = True
    needs: str = ""
    """What has to be installed, for the message when the data are not there."""

    def takes(self, variant: Variant) -> bool:
        """Return whether a variant belongs to it."""
        if self.name in variant.benchmarks:
            return True
        return not variant.benchmarks and (not self.chosen or variant.name in self.chosen)

    def at(self, folder: str) -> Benchmark:
        """Return the benchmark with its data in `folder`."""
        return replace(self, settings={**self.settings, "dataset.path": folder})


RATIOS = (0.02, 0.05, 0.1, 0.2, 1.0)
SCARCE = (0.05, 0.2)
"""Where an algorithm of ours has to be ahead."""

OURS = "discmatch"
"""The variant that stands for this project in the comparisons; chosen on seeds that are not published."""

PSEUDO_REPLAY = "replay + pseudo-labels"
CEILING = "joint upfront + pseudo-labels"
BASELINES = ("replay", "icarl")

FASHION, OPTIONS = "fashion-fcil-20", "fashion-fcil-20-options"

BENCHMARKS = (
    Benchmark(
        FASHION,
        "examples/02-fashion-mnist.yaml",
        RATIOS,
        needs="the Debian package dataset-fashion-mnist",
    ),
    Benchmark(
        OPTIONS,
        "examples/02-fashion-mnist.yaml",
        SCARCE,
        chosen=("fedlwf", "fedewc", "replay", "semifci", OURS),
        pictures=False,
        needs="the Debian package dataset-fashion-mnist",
    ),
    Benchmark(
        "two-datasets-20",
        "examples/09-two-datasets.yaml",
        SCARCE,
        # Without bic, which holds a fifth of 50 exemplars out: less than one for each of twenty classes.
        chosen=(
            *("finetune", "replay", "icarl", "glfc", PSEUDO_REPLAY, "semifci", OURS),
            *("joint upfront", CEILING),
        ),
        needs="the Debian package dataset-fashion-mnist and MNIST (docs/benchmark.md)",
    ),
    Benchmark(
        "digits",
        "examples/01-digits.yaml",
        (1.0,),
        chosen=("finetune", "replay", "icarl", "glfc", OURS),
    ),
)

UNLABELLED = {"unlabelledWeight": 0}
"""What semi-supervised algorithms need to be told where every label is visible."""

PROPOSED: Mapping[str, Any] = {
    "candidates": "seen",
    "pseudoExemplars": False,
    "compensation": "gradients",
    "compensationWeight": 1,
}
"""semifci to the letter of the proposal, without what was mended of it."""

BATCH = {"model.parameters.norm": "batch"}
"""What algorithms that make images out of a model's statistics need, and what is compared with them."""


def _semi(
    name: str,
    algorithm: str,
    parameters: Mapping[str, Any] | None = None,
    ablates: str = "",
    ratios: tuple[float, ...] = (),
) -> Variant:
    """Return a variant that uses unlabelled data where there are any."""
    return Variant(name, algorithm, parameters or {}, all_labelled=UNLABELLED, ablates=ablates, ratios=ratios)


def _option(of: str, what: str, parameters: Mapping[str, Any] | None = None, algorithm: str = "") -> Variant:
    """Return an algorithm with one of its options, or a class that was tried in its place."""
    return Variant(f"{of}, {what}", algorithm or of, parameters or {}, ablates=of, benchmarks=(OPTIONS,))


VARIANTS = (
    Variant("finetune", "finetune"),
    Variant("fedprox", "fedprox"),
    Variant("fedlwf", "fedlwf"),
    Variant("fedewc", "fedewc"),
    Variant("scaffold", "scaffold"),
    Variant("feddyn", "feddyn"),
    Variant("fot", "fot"),
    Variant("finetune, BatchNorm", "finetune", settings=BATCH),
    Variant("fedlwf, BatchNorm", "fedlwf", settings=BATCH),
    Variant("target, BatchNorm", "target", settings=BATCH),
    Variant("mfcl, BatchNorm", "mfcl", settings=BATCH),
    Variant("replay", "replay"),
    Variant("icarl", "icarl"),
    Variant("glfc", "glfc"),
    Variant("lga", "lga"),
    Variant("bic", "bic"),
    _semi(PSEUDO_REPLAY, "semifci", {**PROPOSED, "helpers": 0, "compensationWeight": 0, "fusionWeight": 0}),
    _semi("fedcimatch", "fedcimatch"),
    _semi("semifci", "semifci"),
    _semi("discmatch", "discmatch"),
    Variant("joint", "joint"),
    Variant("joint upfront", "joint", {"upfront": True}),
    _semi(CEILING, "joint", {"upfront": True, "unlabelledWeight": 1}),
    Variant("semifci, no pseudo-labels", "semifci", UNLABELLED, ablates="semifci"),
    _semi("semifci, no helpers", "semifci", {"helpers": 0}, "semifci"),
    _semi("semifci, no compensation", "semifci", {"compensationWeight": 0}, "semifci"),
    _semi("semifci, no fusion", "semifci", {"fusionWeight": 0}, "semifci"),
    _semi("semifci, full compensation", "semifci", {"compensationWeight": 1}, "semifci", (*SCARCE, 1.0)),
    _semi("semifci, all classes seen", "semifci", {"candidates": "seen"}, "semifci", (*SCARCE, 1.0)),
    _semi("semifci, labelled exemplars", "semifci", {"pseudoExemplars": False}, "semifci", (*SCARCE, 1.0)),
    _semi(
        "semifci, glfc's compensation",
        "semifci",
        {"compensation": "gradients", "compensationWeight": 1},
        "semifci",
        (*SCARCE, 1.0),
    ),
    _semi("semifci, as proposed", "semifci", PROPOSED, "semifci"),
    Variant("discmatch, no pseudo-labels", "discmatch", UNLABELLED, ablates="discmatch", ratios=SCARCE),
    _semi("discmatch, all classes seen", "discmatch", {"candidates": "seen"}, "discmatch", SCARCE),
    _semi("discmatch, less distillation", "discmatch", {"distilUnlabelled": False}, "discmatch", SCARCE),
    _semi("discmatch, labelled exemplars", "discmatch", {"pseudoExemplars": False}, "discmatch", SCARCE),
    _semi("discmatch, nearest means", "discmatch", {"classifier": "means"}, "discmatch", SCARCE),
    Variant(
        "icarl, discriminant",
        "discmatch",
        {**UNLABELLED, "distilUnlabelled": False, "pseudoExemplars": False},
        ablates="discmatch",
        ratios=SCARCE,
    ),
    _option("fedlwf", "on unlabelled images too", {"unlabelled": True}),
    _option("fedewc", "on unlabelled images too", {"unlabelled": True}),
    _option("replay", "no alignment", {"classifierCorrection": "none"}),
    _option("semifci", "no alignment", {"classifierCorrection": "none"}),
    _option("semifci", "adaptive thresholds", {"thresholds": "adaptive"}),
    _option("semifci", "all must agree", {"agreement": "required"}),
    _option("semifci", "own class decides", {"agreement": "proposal"}),
    _option("semifci", "random helpers", {"helperChoice": "random"}),
    _option("semifci", "informed helpers", algorithm="benchmarks.fcil.tried:Informed"),
    _option("discmatch", "adaptive thresholds", algorithm="benchmarks.fcil.tried:Adaptive"),
    _option("discmatch", "distribution alignment", algorithm="benchmarks.fcil.tried:Aligned"),
    _option("discmatch", "nearest means vote", algorithm="benchmarks.fcil.tried:NearestMeans"),
)


def benchmark_called(name: str) -> Benchmark:
    """Return the benchmark of that name."""
    return next(benchmark for benchmark in BENCHMARKS if benchmark.name == name)


def group_of(name: str) -> str | None:
    """Return the group of the variant of that name; None when the table has no such variant any more."""
    return next((variant.group for variant in VARIANTS if variant.name == name), None)


def chosen(names: Sequence[str], variants: Sequence[Variant] = VARIANTS) -> list[Variant]:
    """Return the variants called `names` in the table's order, all when there is none.

    Raises SystemExit for a name that the table does not have.
    """
    unknown = sorted(set(names) - {variant.name for variant in variants})
    if unknown:
        known = "; ".join(variant.name for variant in variants)
        raise SystemExit(f"no variant is called {', '.join(unknown)}; there are: {known}")
    return [variant for variant in variants if not names or variant.name in names]
