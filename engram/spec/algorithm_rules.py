"""What an algorithm needs of the rest of the job: exemplars, unlabelled data, workers, a kind of model."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from engram.spec.algorithms import ALGORITHMS
from engram.spec.base import Spec
from engram.spec.job import JobSpec
from engram.spec.problems import Problem

FIELD = "spec.algorithm.parameters"
SERVER_OPTIMISERS = ("fedavgm", "fedadam")
"""Rules that go further than the average, or less far."""


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
    yield from _check_unlabelled(spec, parameters)
    yield from _check_rounds(spec, parameters)


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


def _check_unlabelled(spec: JobSpec, parameters: Spec) -> Iterator[Problem]:
    """Parameters say with `needs_unlabelled` whether the algorithm uses data without labels."""
    if not getattr(parameters, "needs_unlabelled", False):
        return
    ratios = [
        spec.dataset.label_ratio if group.dataset.label_ratio is None else group.dataset.label_ratio
        for group in spec.workers
    ]
    if min(ratios) == 1:
        yield Problem(
            "spec.dataset.labelRatio",
            f"1 leaves no worker with unlabelled data, and {spec.algorithm.name} with these parameters uses "
            "them",
            "write less than 1, or parameters of the algorithm that use none",
        )


def _check_rounds(spec: JobSpec, parameters: Spec) -> Iterator[Problem]:
    """What an algorithm computes of the way from a round's weights to a worker's needs that way as it was."""
    name, aggregation = spec.algorithm.name, spec.aggregation
    optimizer = spec.training.optimizer.name
    if getattr(parameters, "needs_sgd", False) and optimizer != "sgd":
        yield Problem(
            "spec.training.optimizer.name",
            f"{name} reads gradients off the steps of SGD, those of {optimizer} have no size of their own",
            "write sgd",
        )
    if getattr(parameters, "needs_whole_rounds", False) and aggregation.buffer.size:
        yield Problem(
            "spec.aggregation.buffer.size",
            f"{name} compares each update with the weights of its round, in a buffer they are of several",
            "write 0",
        )
    if getattr(parameters, "takes_server_step", False) and aggregation.name in SERVER_OPTIMISERS:
        yield Problem(
            "spec.aggregation.name",
            f"{name} corrects the average of the workers, {aggregation.name} makes something else of it",
            "write fedavg",
        )


def _may_be_zero(parameters: Spec) -> bool:
    try:
        type(parameters).model_validate({"exemplarsPerWorker": 0})
    except ValidationError:
        return False
    return True
