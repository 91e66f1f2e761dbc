"""What a job with `protocol: sedna` can ask for: Sedna's messages carry weights and a number of samples, and
its workers know rounds, no tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

from engram.spec.job import JobSpec
from engram.spec.parameters import NONE
from engram.spec.problems import Problem

ALGORITHMS = ("finetune", "fedprox")
"""Those that need nothing from their workers but weights."""


def brings(field: str) -> bool:
    """Return whether what `field` names may be `none`, because workers can bring it."""
    return field in ("spec.dataset.name", "spec.model.name")


def check_sedna(spec: JobSpec) -> Iterator[Problem]:
    """Yield what does not go together with the protocol."""
    dataset, model = spec.dataset.name == NONE, spec.model.name == NONE
    if spec.protocol != "sedna":
        for field, absent in (("spec.dataset.name", dataset), ("spec.model.name", model)):
            if absent:
                yield Problem(field, "none is for protocol: sedna only", "write what the workers train")
        return
    if dataset != model:
        field, other = ("model", "dataset") if dataset else ("dataset", "model")
        yield Problem(
            f"spec.{field}.name",
            f"is given although {other}.name is none",
            "write none for both, or name both: without data nobody can tell what the model's input is",
        )
    if spec.tasks.count != 1:
        yield Problem(
            "spec.tasks.count",
            f"{spec.tasks.count} tasks with protocol: sedna, whose workers know rounds only",
            "write count: 1, and all classes as classesPerTask",
        )
    if spec.algorithm.name not in ALGORITHMS:
        yield Problem(
            "spec.algorithm.name",
            f"{spec.algorithm.name} exchanges more than weights, which protocol: sedna cannot carry",
            f"write {' or '.join(ALGORITHMS)}, or protocol: engram",
        )
    if spec.aggregation.client_fraction != 1:
        yield Problem(
            "spec.aggregation.clientFraction",
            "with protocol: sedna every worker trains in every round",
            "write clientFraction: 1, or protocol: engram",
        )
    if spec.aggregation.compression != "none":
        yield Problem(
            "spec.aggregation.compression",
            "with protocol: sedna weights are JSON text",
            "write compression: none, or protocol: engram",
        )
    if spec.evaluation.location == "workers":
        yield Problem(
            "spec.evaluation.location",
            "with protocol: sedna nobody can ask workers to evaluate",
            "write location: aggregator, or protocol: engram",
        )
