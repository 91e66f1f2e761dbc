"""Local SGD: the steps of one round on one worker, the same for every algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engram.errors import NumericalError
from engram.federation.roles import Progress
from engram.learning.algorithm import Algorithm
from engram.learning.augment import Augmentation
from engram.learning.context import Batch, LocalContext
from engram.learning.device import moved, precision
from engram.learning.optimise import LocalOptimizer, build_optimizer
from engram.learning.pool import SamplePool
from engram.learning.seeds import global_generator
from engram.learning.tensors import finite
from engram.spec.training import Training

GPU_CHECK_INTERVAL = 16
"""Steps between two looks at the loss on a GPU, where each look waits for the device."""
WEIGHT_NOT_FINITE = "a weight is not finite after the last step"


@dataclass(frozen=True)
class RoundData:
    """What a round trains on."""

    labelled: SamplePool
    """Labelled samples and exemplars."""
    targets: Tensor
    """Rows of the head for `labelled`, on the CPU."""
    unlabelled: SamplePool
    hidden: Tensor
    """Rows of the head for `unlabelled`, on the CPU; -1 is impossible, since both are of the same task."""


def step_count(training: Training, labelled: int, unlabelled: int) -> int:
    """Return the local steps of a round: localSteps, or localEpochs x ceil(samples / batchSize).

    Samples are labelled samples and exemplars (unlabelled batches ride along in the same steps); on a worker
    without any they are the unlabelled ones.
    """
    if training.local_steps is not None:
        return training.local_steps
    return training.local_epochs * math.ceil((labelled or unlabelled) / training.batch_size)


def batches(count: int, size: int, steps: int, shuffle: Callable[[int], torch.Generator]) -> Iterator[Tensor]:
    """Yield `steps` index tensors of exactly `size` out of range(count): one permutation after another.

    Permutation e is drawn from shuffle(e). A batch may end one permutation and begin the next, so that every
    step sees `size` samples and every sample is used equally often (up to one). Without samples the batches
    are empty.
    """
    if count == 0:
        yield from (torch.empty(0, dtype=torch.int64) for _ in range(steps))
        return
    waiting = torch.empty(0, dtype=torch.int64)
    epoch = 0
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=shuffle(epoch))])
            epoch += 1
        yield waiting[:size]
        waiting = waiting[size:]


class LocalSteps:
    """Runs the steps of one round."""

    def __init__(self, training: Training, augmentation: Augmentation, rounds: int) -> None:
        self.training = training
        self._augmentation = augmentation
        self.rounds = rounds
        """Rounds of the task, over which the learning rate's schedule runs."""

    def run(
        self, algorithm: Algorithm, context: LocalContext, data: RoundData, progress: Progress
    ) -> tuple[int, float]:
        """Train `context.network` in place; return (steps, mean loss over them).

        Raises NumericalError when a loss or a weight is not finite.
        """
        steps = step_count(self.training, len(data.labelled), len(data.unlabelled))
        network = context.network.train()
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = build_optimizer(parameters, self.training, context.round, self.rounds)
        interval = GPU_CHECK_INTERVAL if context.device.type == "cuda" else 1
        total = torch.zeros((), dtype=torch.float64, device=context.device)
        scope = context.scope
        with global_generator(
            context.device, context.seed, "torch", context.worker, scope.task, context.round
        ):
            for batch in self.feed(context, data, steps):
                with precision(context.device, self.training):
                    loss = algorithm.loss(context, batch)
                self._step(optimizer, loss, parameters)
                total += loss.detach()
                done = batch.step + 1
                if done % interval == 0 or done == steps:
                    value = float(loss.detach())
                    if not math.isfinite(value):
                        raise diverged(self.training, context, f"the loss is {value} in step {done}")
                    progress(done / steps, value)
        if not finite(network.state_dict()):
            raise diverged(self.training, context, WEIGHT_NOT_FINITE)
        return steps, float(total) / steps

    def _step(self, optimizer: LocalOptimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.training.gradient_clip)
        optimizer.step()

    def feed(self, context: LocalContext, data: RoundData, steps: int) -> Iterator[Batch]:
        """Yield the batches of a round, the same ones whenever and wherever the worker is asked for them."""
        size = self.training.batch_size
        generator = context.generator("augment")
        labelled = batches(len(data.labelled), size, steps, lambda e: context.generator("labelled", e))
        unlabelled = batches(len(data.unlabelled), size, steps, lambda e: context.generator("unlabelled", e))
        for step, (index, other) in enumerate(zip(labelled, unlabelled, strict=True)):
            yield Batch(
                images=self._augmentation(data.labelled.take(index), generator),
                targets=moved(data.targets[index], context.device),
                unlabelled=data.unlabelled.take(other),
                hidden=moved(data.hidden[other], context.device),
                step=step,
            )


def diverged(training: Training, context: LocalContext, problem: str) -> NumericalError:
    """Return the error of a worker whose training left the finite numbers."""
    rate, clip = training.optimizer.learning_rate, training.gradient_clip
    clipping = "set spec.training.gradientClip (such as 5)" if clip is None else f"gradientClip (now {clip})"
    return NumericalError(
        f"{context.worker}, task {context.scope.task}, round {context.round}: {problem}",
        field="spec.training.optimizer.learningRate",
        remedy=f"lower learningRate (now {rate}) or {clipping}",
    )
