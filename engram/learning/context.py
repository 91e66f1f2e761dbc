"""What an algorithm's worker-side hooks can see and use: the task, the network in training, what the
aggregator sent, the worker's own data, and generators for random draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engram.data.types import ImageSource, Indices, WorkerShare
from engram.federation.messages import Tensors
from engram.learning.augment import Augmentation, strong
from engram.learning.models import Network
from engram.learning.pool import read_images
from engram.learning.seeds import generator
from engram.learning.tensors import HEAD_BIAS, into_module, to_torch
from engram.spec.training import Training

FORWARD_BATCH = 256
"""Images in one forward pass without gradients; fixed, because it may decide the last bit of a result."""


@dataclass(frozen=True)
class TaskScope:
    """Which task it is and which classes that means."""

    task: int
    """From 1."""
    classes: tuple[int, ...]
    """Label ids that are new in this task."""
    seen: tuple[int, ...]
    """Label ids of tasks 1..task in learning order; row i of the head is seen[i]."""

    @property
    def old(self) -> int:
        """Number of classes, and of rows of the head, that earlier tasks brought."""
        return len(self.seen) - len(self.classes)


@dataclass(frozen=True)
class Batch:
    """What one local step trains on."""

    images: Tensor
    """[b, channels, height, width], labelled samples and exemplars after augmentation; b = batchSize, or 0 on
    a worker that has unlabelled data only."""
    targets: Tensor
    """[b], rows of the head."""
    unlabelled: Tensor
    """[u, channels, height, width] without augmentation; u = batchSize where the round uses unlabelled data,
    else 0."""
    hidden: Tensor
    """[u], the rows that the unlabelled samples belong to: for the metric of pseudo-label accuracy only."""
    step: int
    """From 0 within the round."""


@dataclass(frozen=True)
class LocalContext:
    """One round of local training (or, with `round` 0, the consolidation of a task) on one worker."""

    worker: str
    scope: TaskScope
    round: int
    network: Network
    """The model in training, on `device`; in consolidation the task's final global model."""
    received: Tensors
    """The global weights as they came, names as in `network.state_dict()`."""
    groups: Mapping[str, Tensors]
    """The groups of `Algorithm.shared` as they came."""
    share: WorkerShare
    source: ImageSource
    """The training samples that positions of `share` point into."""
    device: torch.device
    seed: int
    make_network: Callable[[int], Network]
    augmentation: Augmentation
    """What labelled images have gone through: `spec.training.augmentation`."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What the algorithm adds to the round's metrics; finite numbers."""
    _draws: dict[str, torch.Generator] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The global weights as torch tensors on `device`; training does not change them."""
        return to_torch(self.received, self.device)

    @cached_property
    def shared(self) -> dict[str, dict[str, Tensor]]:
        """The groups that the aggregator's side sent, as torch tensors on `device`."""
        return {name: to_torch(tensors, self.device) for name, tensors in self.groups.items()}

    def generator(self, purpose: str, epoch: int = 0) -> torch.Generator:
        """Return the generator of one purpose in this round; same place, same numbers, also after a
        restart.
        """
        return generator(self.seed, purpose, self.worker, self.scope.task, self.round, epoch)

    def weak(self, images: Tensor) -> Tensor:
        """Return `images` after the job's own augmentation, drawn anew at every call."""
        return self.augmentation(images, self._running("weak"))

    def strong(self, images: Tensor) -> Tensor:
        """Return `images` after `augment.strong`, drawn anew at every call."""
        return strong(images, self._running("strong"))

    def _running(self, purpose: str) -> torch.Generator:
        """Return the round's one generator of a purpose, which runs on from call to call."""
        return self._draws.setdefault(purpose, self.generator(purpose))

    def frozen(self, weights: Tensors, spent: Network | None = None) -> Network:
        """Return a network with `weights` in eval mode that takes no gradient: a teacher, a helper.

        It is `spent`, one that was frozen before and is not needed any more, where that is as large.
        """
        if spent is not None and spent.rows == len(weights[HEAD_BIAS]):
            into_module(weights, spent)  # making a network takes longer than filling one
            return spent
        return frozen_network(self.make_network, weights, self.device)

    def images(self, positions: Indices) -> Tensor:
        """Return training images on `device`, without augmentation."""
        return read_images(self.source, positions, self.device)

    def rows(self, positions: Indices) -> Tensor:
        """Return the rows of the head [n] for the labels of training samples."""
        return torch.from_numpy(rows_of(self.source.labels[positions], self.scope.seen)).to(self.device)

    def by_class(self, positions: Indices) -> dict[int, Indices]:
        """Return the positions of each of this task's classes."""
        labels = self.source.labels[positions]
        return {label: positions[labels == label] for label in self.scope.classes}

    def features(self, positions: Indices) -> Tensor:
        """Return the network's features [n, d], each of length 1: eval mode, no augmentation, no gradient.

        One way of computing features for herding, class means and classification alike.
        """
        network = self.network
        return self._passed(
            positions,
            lambda images: functional.normalize(network.features(images), dim=1),
            network.head.in_features,
        )

    def logits(self, positions: Indices) -> Tensor:
        """Return the network's logits [n, rows]: eval mode, no augmentation, no gradient."""
        return self._passed(positions, self.network, self.network.rows)

    def _passed(self, positions: Indices, function: Callable[[Tensor], Tensor], size: int) -> Tensor:
        """Return `function` of the images at `positions` [n, size]."""
        parts = [torch.zeros(0, size, device=self.device)]
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            for start in range(0, len(positions), FORWARD_BATCH):
                parts.append(function(self.images(positions[start : start + FORWARD_BATCH])))
        self.network.train(training)
        return torch.cat(parts)


@dataclass(frozen=True)
class GlobalContext:
    """What an algorithm's aggregator-side hooks can use beside what they are given."""

    workers: tuple[str, ...]
    """Names of the job's workers, in its order."""
    tasks: int
    """How many tasks are trained: after the last one nothing has to be made ready."""
    shape: tuple[int, int, int]
    """Channels, height, width of the images."""
    seed: int
    device: torch.device
    make_network: Callable[[int], Network]
    training: Training
    """`spec.training`: the workers' local steps."""

    def generator(self, purpose: str, *keys: str | int) -> torch.Generator:
        """Return the generator of one purpose; equal keys, equal numbers, also after a restart."""
        return generator(self.seed, purpose, *keys)

    def frozen(self, weights: Tensors) -> Network:
        """Return a network with `weights` in eval mode that takes no gradient."""
        return frozen_network(self.make_network, weights, self.device)


def frozen_network(make_network: Callable[[int], Network], weights: Tensors, device: torch.device) -> Network:
    """Return a network with `weights` in eval mode that takes no gradient."""
    network = make_network(len(weights[HEAD_BIAS])).to(device)
    into_module(weights, network)
    return network.eval().requires_grad_(False)


def rows_of(labels: Indices, seen: tuple[int, ...]) -> Indices:
    """Return the row of the head for each label; -1 for a label that is not in `seen`."""
    table = np.full(max(int(labels.max(initial=0)), *seen) + 1, -1, np.int64)
    table[list(seen)] = np.arange(len(seen))
    found: Indices = table[labels]
    return found
