"""What an algorithm needs of the rest of the job: exemplars, unlabelled data, workers, a kind of model."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from engram.spec.algorithms import ALGORITHMS, DataFreeParameters
from engram.spec.base import Spec
from engram.spec.job import JobSpec
from engram.spec.parameters import MODELS
from engram.spec.problems import Problem

FIELD = "spec.algorithm.parameters"


def check_algorithm(spec: JobSpec) -> Iterator[Problem]:
    """Yield what does not go together with a built-in algorithm whose own parameters are right."""
    kind = ALGORITHMS.get(spec.algorithm.name)
    if kind is None:
        return
    try:
        parameters = kind.model_validate(spec.algorithm.parameters)
    except ValidationError:
        return  # told by the check of the parameters themselves
    yield from _check_exemplars(spec, parameters)
    if isinstance(parameters, DataFreeParameters):
        yield from _check_norm(spec)


def _check_exemplars(spec: JobSpec, parameters: Spec) -> Iterator[Problem]:
    """A budget below one exemplar a class could not be kept to: each class that was learned needs one."""
    budget = getattr(parameters, "exemplars_per_worker", 0)
    classes = spec.tasks.count * spec.tasks.classes_per_task
    if 0 < budget < classes:
        none = ", or 0 for none" if _may_be_zero(parameters) else ""
        yield Problem(
            f"{FIELD}.exemplarsPerWorker",
            f"{budget} is less than one exemplar for each of the job's {classes} classes",
            f"write at least {classes}{none}",
        )


def _check_norm(spec: JobSpec) -> Iterator[Problem]:
    """Only BatchNorm layers keep the statistics that images can be made from; what a model of the user's own
    has is seen when it is built.
    """
    kind = MODELS.get(spec.model.name)
    norm = spec.model.parameters.get("norm", kind and kind.model_fields["norm"].default)
    if kind is not None and norm != "batch":
        yield Problem(
            "spec.model.parameters.norm",
            f"{norm} leaves {spec.algorithm.name} nothing to make images from: it needs the statistics that "
            "BatchNorm layers keep",
            "write batch",
        )


def _may_be_zero(parameters: Spec) -> bool:
    try:
        type(parameters).model_validate({"exemplarsPerWorker": 0})
    except ValidationError:
        return False
    return True
