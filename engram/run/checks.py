"""What can be checked of a job beyond its schema before anything starts: code of the user's own, and whether
its workers can train together.
"""

from __future__ import annotations

from engram.errors import ConfigurationError
from engram.federation.aggregation import build
from engram.learning import check_batched
from engram.sedna.estimator import check_unseen
from engram.sedna.plugin import estimator_class
from engram.spec import FederatedIncrementalJob, aggregation_parameters
from engram.spec.dotted import is_dotted, load_dotted


def check_together(job: FederatedIncrementalJob) -> None:
    """Raise ConfigurationError unless the job's workers can train together in one process (`--batched`)."""
    if estimator_class(job) is not None:
        raise ConfigurationError(
            "an estimator of Sedna's trains alone, not together with others (--batched)",
            field="spec.algorithm.name",
            remedy="leave --batched out",
        )
    check_batched(job)


def check_code(job: FederatedIncrementalJob) -> None:
    """Import every dotted path of the job and let it check its parameters, as far as that needs no data.

    `Place.open_modules` must have been called. Raises ConfigurationError with the end of the user's own
    traceback.
    """
    spec = job.spec
    named = {
        "spec.dataset.name": spec.dataset.name,
        "spec.model.name": spec.model.name,
        "spec.training.augmentation": spec.training.augmentation,
    }
    for field, name in named.items():
        if is_dotted(name):
            load_dotted(name, field)
    if estimator_class(job) is not None:
        check_unseen(job)
    if is_dotted(spec.algorithm.name):
        load_dotted(spec.algorithm.name, "spec.algorithm.name")
        from engram.learning.algorithms import build_algorithm  # imports torch, as the user's class just did

        build_algorithm(job)
    build(spec.aggregation.name, aggregation_parameters(job))
