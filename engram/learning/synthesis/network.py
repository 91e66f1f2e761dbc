"""The network that makes images from noise: small, for images of any size, the same for every algorithm.

Two blocks that double the resolution, as in Fang et al. 2019 ("Data-free adversarial distillation") and the
code of both papers that train it here. A last normalisation without parameters gives every channel mean 0 and
variance 1, which is what training images have.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engram.errors import NumericalError
from engram.federation.messages import Tensors
from engram.learning.context import GlobalContext, LocalContext
from engram.learning.seeds import global_generator
from engram.learning.tensors import finite, into_module
from engram.spec.algorithms import DataFreeParameters

HALVINGS = 2


class ImageGenerator(nn.Module):
    """Maps codes [b, size] to images [b, channels, height, width]."""

    def __init__(self, shape: tuple[int, int, int], size: int, width: int) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        step = 1 << HALVINGS
        self.inner = (2 * width, -(-self.height // step), -(-self.width // step))
        self.project = nn.Linear(size, self.inner[0] * self.inner[1] * self.inner[2])
        self.layers = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            *_doubled(2 * width, 2 * width),
            *_doubled(2 * width, width),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )
        self.standardised = nn.BatchNorm2d(channels, affine=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Return one image for each code."""
        inner = self.project(codes).view(len(codes), *self.inner)
        images: Tensor = self.standardised(self.layers(inner)[:, :, : self.height, : self.width])
        return images


def _doubled(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2),
    ]


def fresh_generator(
    context: GlobalContext, parameters: DataFreeParameters, labels: int, task: int
) -> ImageGenerator:
    """Return a generator with seeded values, on the context's device, that is told one of `labels` labels
    beside the noise (0: none).
    """
    with global_generator(context.device, context.seed, "image-generator", task):
        size = parameters.noise_size + labels
        return ImageGenerator(context.shape, size, parameters.generator_width).to(context.device)


def received_generator(
    context: LocalContext, parameters: DataFreeParameters, weights: Tensors
) -> ImageGenerator:
    """Return the generator with `weights`, in eval mode, that takes noise and no gradient."""
    generator = ImageGenerator(context.source.shape, parameters.noise_size, parameters.generator_width)
    into_module(weights, generator.to(context.device))
    return generator.eval().requires_grad_(False)


def noise(count: int, size: int, draws: torch.Generator, device: torch.device) -> Tensor:
    """Return standard normal numbers [count, size], drawn on the CPU so that every device has the same."""
    return torch.randn(count, size, generator=draws).to(device)


def check_finite(tensors: Mapping[str, Tensor], task: int) -> None:
    """Raise NumericalError when the generator's training has diverged."""
    if not finite(tensors):
        raise NumericalError(
            f"the aggregator, end of task {task}: the generator of images has diverged",
            field="spec.algorithm.parameters.generatorLearningRate",
            remedy="lower it",
        )
