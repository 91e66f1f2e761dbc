"""Class-forgetting compensation by prevalence: what comes often in training must not be taken for likely.

A step brings many images of the task's new classes, labelled or not, beside few exemplars of old ones, or
with few labels the other way round. A head that learns how often classes come unlearns the rarer ones.
"""

from __future__ import annotations

import math

from engram.learning.context import TaskScope

LEAST = 1e-3
"""Share of new samples in a step that is assumed where a worker has none, so that there is a logarithm."""


def prevalence_offset(scope: TaskScope, labelled: int, exemplars: int, unlabelled: float) -> float:
    """Return the logarithm of how much more often a step brings a new class than an old one.

    Of the b labelled images of a step `labelled` in (labelled + exemplars) are of new classes. So are b
    images without a label, each of which counts `unlabelled`. Added to the new rows in training, and left out
    afterwards, the offset makes cross-entropy balanced between old and new classes: Ren et al. 2020
    ("Balanced meta-softmax for long-tailed visual recognition"), equation 3, with two kinds instead of single
    classes; Menon et al. 2021 ("Long-tail learning via logit adjustment"), equation 10. 0 where nothing is
    old or no exemplar is held.
    """
    if scope.old == 0 or exemplars == 0:
        return 0.0
    kept = exemplars / (labelled + exemplars)
    fresh = max(LEAST, 1 - kept + unlabelled)
    return math.log(fresh / len(scope.classes)) - math.log(kept / scope.old)
