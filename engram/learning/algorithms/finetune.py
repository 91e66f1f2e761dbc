"""finetune: federated averaging on the current task only (McMahan et al. 2017, algorithm 1).

The lower bound: nothing keeps the old classes, so they are forgotten.
"""

from __future__ import annotations

from engram.learning.algorithm import Algorithm


class Finetune(Algorithm):
    """Plain local SGD and averaging: what the base class does."""

    vectorised = True
