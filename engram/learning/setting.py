"""What both sides of a run are built from: the job, its data, and what they make of each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from engram.data.types import DataSet, Split
from engram.federation.messages import Tensors
from engram.learning.algorithm import Algorithm
from engram.learning.algorithms import build_algorithm
from engram.learning.context import TaskScope
from engram.learning.device import memory_guard, pick_device
from engram.learning.models import Network, build_network
from engram.learning.plan import TaskPlan, curriculum
from engram.learning.tensors import from_module
from engram.spec import FederatedIncrementalJob
from engram.spec.dotted import own_code


@dataclass(frozen=True)
class Setting:
    """A job together with its data set, its split and the device of this process."""

    job: FederatedIncrementalJob
    dataset: DataSet
    split: Split
    plans: tuple[TaskPlan, ...]
    device: torch.device

    @classmethod
    def of(cls, job: FederatedIncrementalJob, dataset: DataSet, split: Split) -> Setting:
        """Return the setting of a job in this process."""
        return cls(job, dataset, split, curriculum(job, split.tasks), pick_device())

    @property
    def classes(self) -> tuple[int, ...]:
        """Label ids of the whole job in learning order."""
        return self.scope(len(self.plans)).seen

    def scope(self, task: int) -> TaskScope:
        """Return the classes of `task` (from 1)."""
        seen = tuple(label for plan in self.plans[:task] for label in plan.classes)
        return TaskScope(task=task, classes=self.plans[task - 1].classes, seen=seen)

    def algorithm(self) -> Algorithm:
        """Return a new object of the job's algorithm."""
        return build_algorithm(self.job)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Run hooks of the algorithm inside this block: it tells running out of memory (at `where`) and
        errors of a user's own class for what they are.
        """
        with own_code(self.job.spec.algorithm.name, "spec.algorithm.name"), memory_guard(where):
            yield

    def network(self, rows: int) -> Network:
        """Return a new network on this process's device, with a head of `rows` rows."""
        return build_network(self.job, self.dataset.train.shape, rows).to(self.device)

    @cached_property
    def initial(self) -> Tensors:
        """The seeded initial weights with a row of the head for every class, in learning order."""
        return from_module(build_network(self.job, self.dataset.train.shape, len(self.classes)))
