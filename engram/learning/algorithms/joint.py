"""joint: train on all data of the tasks so far, as if nothing ever had to leave.

The reference, not a method: cumulative, its R[t][t] is a*_t of intransigence (Chaudhry et al. 2018, section
3.2); with `upfront` it knows all classes from round 1 and bounds the accuracy from above.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engram.data.types import Indices, WorkerShare
from engram.learning.algorithm import Algorithm
from engram.spec.algorithms import JointParameters
from engram.spec.base import Spec


class Joint(Algorithm):
    """Trains task t on the labelled samples of tasks 1..t."""

    Parameters: ClassVar[type[Spec]] = JointParameters
    vectorised = True

    def __init__(self, parameters: JointParameters) -> None:
        super().__init__(parameters)
        self.upfront = parameters.upfront

    def labelled(self, share: WorkerShare, task: int) -> Indices:
        """Return the labelled samples of all tasks so far; upfront: of all tasks."""
        tasks = share.tasks if self.upfront else share.tasks[:task]
        return np.concatenate([part.labelled for part in tasks])
