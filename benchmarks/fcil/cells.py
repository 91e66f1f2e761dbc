"""One run of the benchmark, and what makes it the same run as one that was made before."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fcil.code import code_digest
from benchmarks.fcil.variants import ROOT, Benchmark, Variant
from engram.run.overrides import set_path
from engram.run.source import load_mapping
from engram.spec import FederatedIncrementalJob, parse_job
from engram.spec.parameters import algorithm_parameters, model_parameters

Key = tuple[str, str, float, int]
"""Benchmark, variant, label ratio, seed."""


@dataclass(frozen=True)
class Cell:
    """A variant at a label ratio with a seed."""

    benchmark: Benchmark
    variant: Variant
    ratio: float
    seed: int

    @property
    def key(self) -> Key:
        """What a row of the results is found by."""
        return self.benchmark.name, self.variant.name, self.ratio, self.seed

    @property
    def code(self) -> str:
        """Digest of the code that decides its figures."""
        return code_digest(self.variant.algorithm)

    def job(self) -> FederatedIncrementalJob:
        """Return the job that is run. Raises ConfigurationError for a parameter that its algorithm lacks."""
        mapping = dict(_file(self.benchmark.job))
        for path, value in self.settings().items():
            mapping = set_path(mapping, path.split("."), value)
        return parse_job(mapping, f"{self.benchmark.job} with {self.variant.name}")

    def settings(self) -> dict[str, Any]:
        """Return the fields below spec that differ from the job file, by their paths."""
        return {
            **self.benchmark.settings,
            **self.variant.settings,
            "algorithm": algorithm_of(self.variant, self.ratio),
            "dataset.labelRatio": self.ratio,
            "seed": self.seed,
        }

    def digest(self) -> str:
        """Return the digest of the job, see `job_digest`."""
        return job_digest(self.job())


def algorithm_of(variant: Variant, ratio: float) -> dict[str, Any]:
    """Return `spec.algorithm` of a variant at a label ratio."""
    parameters = {**variant.parameters, **(variant.all_labelled if ratio == 1 else {})}
    return {"name": variant.algorithm, **({"parameters": parameters} if parameters else {})}


def job_digest(job: FederatedIncrementalJob) -> str:
    """Return the digest of all that a job says about its result, defaults of parameters included.

    Where the data lie does not count: their content is in the digest of the split.
    """
    document = job.dump()
    document["spec"]["dataset"] |= {"path": "", "volume": {}}
    document["spec"]["algorithm"]["parameters"] = _plain(algorithm_parameters(job))
    document["spec"]["model"]["parameters"] = _plain(model_parameters(job))
    return parse_job(document).digest()[:16]


def cells_of(
    benchmark: Benchmark, variants: Iterable[Variant], ratios: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    """Return the runs of the variants at those of the ratios that they take."""
    return [
        Cell(benchmark, variant, ratio, seed)
        for variant in variants
        for ratio in ratios
        if not variant.ratios or ratio in variant.ratios
        if benchmark.takes(variant)
        for seed in seeds
    ]


@functools.cache
def _file(job: str) -> Mapping[str, Any]:
    return load_mapping(ROOT / job)


def _plain(parameters: Any) -> Any:
    return parameters if isinstance(parameters, dict) else parameters.dump()
