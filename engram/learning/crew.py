"""Workers of one process that train their rounds together: `engram run --batched`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from engram.data.types import WorkerShare
from engram.errors import ConfigurationError
from engram.federation.messages import Train, Update
from engram.federation.roles import Progress
from engram.learning.algorithms import algorithm_class
from engram.learning.batched import BatchedSteps, Part
from engram.learning.local_learner import Round, Worker, abstention
from engram.learning.setting import Setting
from engram.spec import FederatedIncrementalJob, WorkerIdentity

REMEDY = "or leave --batched out"


def check_batched(job: FederatedIncrementalJob) -> None:
    """Raise ConfigurationError unless the workers of `job` can train together."""
    spec = job.spec
    if spec.training.local_steps is None:
        raise ConfigurationError(
            "workers that train together (--batched) take the same number of steps",
            field="spec.training.localSteps",
            remedy=f"set it, for example --set training.localSteps=16, {REMEDY}",
        )
    if spec.aggregation.buffer.size:
        raise ConfigurationError(
            "workers that train together (--batched) train the same round; asynchronous ones do not",
            field="spec.aggregation.buffer.size",
            remedy=f"set it to 0, {REMEDY}",
        )
    if not algorithm_class(job).vectorised:
        raise ConfigurationError(
            f"the loss of {spec.algorithm.name} cannot be taken for several workers at once (--batched)",
            field="spec.algorithm.name",
            remedy="leave --batched out; a class of your own says vectorised = True where it can "
            "(engram.learning.algorithm)",
        )


class Member(Worker):
    """A worker whose rounds its crew trains."""

    def __init__(self, setting: Setting, identity: WorkerIdentity, share: WorkerShare) -> None:
        super().__init__(setting, identity, share)
        self._trained: tuple[Train, Update] | None = None

    def train(self, order: Train, progress: Progress) -> Update:
        """Return what the crew has made of this order; train alone where it was not asked to."""
        trained, self._trained = self._trained, None
        if trained is not None and trained[0] is order:
            return trained[1]
        return super().train(order, progress)

    def accept(self, order: Train, update: Update) -> None:
        """Take the answer to `order`, which is about to be given."""
        self._trained = order, update

    def part(self, ready: Round, progress: Progress) -> Part:
        """Return this worker's part in the steps of a round."""
        return Part(self._algorithm, ready.context, ready.data, progress)


class Crew:
    """Implements `engram.federation.roles.Crew`."""

    def __init__(self, members: Iterable[tuple[Setting, WorkerIdentity, WorkerShare]]) -> None:
        given = list(members)
        self._setting = given[0][0]
        self.members = {identity.name: Member(*member) for member in given for identity in [member[1]]}

    def train(self, orders: Mapping[str, Train], progress: Mapping[str, Progress]) -> None:
        """Train the orders of one round at once; each member's `train` then returns its update.

        Raises NumericalError when a worker's loss is not finite, ConfigurationError when memory runs out.
        """
        first = next(iter(orders.values()))
        with self._setting.guard(f"all workers together, task {first.task}, round {first.round}"):
            self._train(orders, progress)

    def _train(self, orders: Mapping[str, Train], progress: Mapping[str, Progress]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        ready = {name: self.members[name].begin(order) for name, order in orders.items()}
        begun = {name: round for name, round in ready.items() if round is not None}
        updates: dict[str, Update] = {}
        for names in _alike(begun):
            steps = self.members[names[0]].steps(orders[names[0]].task)
            parts = [self.members[name].part(begun[name], progress[name]) for name in names]
            for name, (count, loss) in zip(names, BatchedSteps(steps).run(parts), strict=True):
                updates[name] = self.members[name].close(begun[name], count, loss)
        # All of them were at work all the time; what the processor did is divided between them.
        share = (time.process_time() - cpu) / max(1, len(begun))
        spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": share}
        for name, order in orders.items():
            update = updates.get(name)
            if update is None:
                self.members[name].accept(order, abstention(order))
            else:
                self.members[name].accept(order, replace(update, metrics={**update.metrics, **spent}))


def _alike(begun: Mapping[str, Round]) -> list[list[str]]:
    """Return the workers in groups that have labelled data, or none, and unlabelled data, or none."""
    groups: dict[tuple[bool, bool], list[str]] = {}
    for name, ready in begun.items():
        kind = len(ready.data.labelled) > 0, len(ready.data.unlabelled) > 0
        groups.setdefault(kind, []).append(name)
    return list(groups.values())
