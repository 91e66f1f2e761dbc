"""n_k: how much a worker's update weighs in the average (learning.md, "Scenario")."""

from __future__ import annotations

from typing import Literal

Weighting = Literal["used", "labelled", "uniform"]


def update_weight(weighting: Weighting, *, labelled: int, exemplars: int, unlabelled: int) -> int:
    """Return n_k for one round.

    used: distinct labelled samples + exemplars + unlabelled samples that this round's loss used;
    labelled: labelled samples + exemplars; uniform: 1 (the rule of GLFC's paper). 0 where the worker has
    nothing to train on, whatever the rule: it takes no part.
    """
    if labelled + exemplars + unlabelled == 0:
        return 0
    if weighting == "uniform":
        return 1
    return labelled + exemplars + (unlabelled if weighting == "used" else 0)
