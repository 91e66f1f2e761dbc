"""A class-incremental algorithm of your own: one class, used by 04-own-algorithm.yaml.

`algorithm.name: own_algorithm:RehearsalWithMixup` names this file, which lies beside the job file, and the
class. Start from `engram.learning.algorithm.Algorithm`, which is plain federated fine-tuning, and override
only what your idea changes; its docstring lists every hook and says when and where it is called.

The idea here: rehearsal of exemplars in which every image is blended with another one of its batch (mixup,
Zhang et al. 2018), so that the few exemplars of an old class yield many different training images.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from engram.learning.algorithm import Algorithm, Batch, LocalContext
from engram.learning.losses import cross_entropy
from engram.learning.memory import Memory
from engram.spec.base import Spec


class MixupParameters(Spec):
    """`spec.algorithm.parameters` of this algorithm: names in camelCase there, checked before training."""

    exemplars_per_worker: int = Field(50, ge=1, le=10_000, description="Exemplars that each worker keeps.")
    blend: float = Field(
        0.3, ge=0, le=0.5, description="Largest share of the other image; 0 is plain replay."
    )


class RehearsalWithMixup(Algorithm):
    """Trains on blended pairs of labelled samples and exemplars."""

    Parameters: ClassVar[type[Spec]] = MixupParameters

    def __init__(self, parameters: MixupParameters) -> None:
        super().__init__(parameters)
        # With a memory the base class does the rest: training data are labelled samples and exemplars, and
        # at the end of a task herding chooses new exemplars.
        self.memory = Memory(parameters.exemplars_per_worker)
        self.blend = parameters.blend
        self.generator = torch.Generator()

    def begin_round(self, context: LocalContext) -> None:
        """Take this round's own random numbers: the same ones after a restart of the worker."""
        self.generator = context.generator("mixup")

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return (1 - s) CE(blended, own label) + s CE(blended, other label), s drawn from [0, blend]."""
        share: float = self.blend * torch.rand((), generator=self.generator).item()
        other = torch.randperm(len(batch.images), generator=self.generator).to(batch.images.device)
        blended = (1 - share) * batch.images + share * batch.images[other]
        logits = context.network(blended)
        own, others = cross_entropy(logits, batch.targets), cross_entropy(logits, batch.targets[other])
        return own * (1 - share) + others * share
