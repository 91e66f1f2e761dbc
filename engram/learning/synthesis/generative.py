"""mfcl's generator: trained at a task's end on what the global model says of its images."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from engram.federation.messages import Tensors
from engram.learning.context import GlobalContext
from engram.learning.losses import cross_entropy
from engram.learning.seeds import global_generator
from engram.learning.synthesis.network import check_finite, fresh_generator, noise
from engram.learning.synthesis.priors import Watched, roughness, statistics_divergence, uniformity
from engram.learning.tensors import from_module, into_module
from engram.spec.algorithms import MfclParameters


def train_generator(
    context: GlobalContext, parameters: MfclParameters, task: int, weights: Tensors, before: Tensors
) -> dict[str, NDArray[Any]]:
    """Return the weights of a generator trained against the model of `weights`, from those `before`, if any.

    The loss is that of `engram.learning.algorithms.mfcl` at the aggregator.
    """
    teacher = Watched(context.frozen(weights))
    generator = fresh_generator(context, parameters, 0, task)
    if before:
        into_module(before, generator)
    adam = torch.optim.Adam(generator.parameters(), lr=parameters.generator_learning_rate)
    draws = context.generator("synthesis", task)
    with global_generator(context.device, context.seed, "synthesis", task):
        for _ in range(parameters.generator_steps):
            draw = noise(parameters.generator_batch, parameters.noise_size, draws, context.device)
            images = generator(draw)
            logits, layers = teacher(images)
            loss = (
                cross_entropy(logits, logits.detach().argmax(1))
                + parameters.diversity * uniformity(logits)
                + parameters.statistics * statistics_divergence(layers)
                + parameters.smoothness * roughness(images)
            )
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    check_finite(generator.state_dict(), task)
    return from_module(generator)
