"""What a generator is taught by when there are no data: the losses on its images, each a pure function of
tensors, and the statistics that a trained network's BatchNorm layers have kept of what they saw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engram.errors import ConfigurationError
from engram.learning.models import Network

TINY = 1e-8
"""Keeps logarithms and quotients of variances finite."""
BLUR = 5
"""Side of the Gaussian kernel; its standard deviation is one pixel."""


@dataclass(frozen=True)
class Layer:
    """A BatchNorm layer: statistics [channels] of the images at hand, and those that it keeps."""

    mean: Tensor
    variance: Tensor
    kept_mean: Tensor
    kept_variance: Tensor


class Watched:
    """A frozen network that says what reaches its BatchNorm layers."""

    def __init__(self, network: Network) -> None:
        """Watch `network`; raises ConfigurationError where it has no BatchNorm layer."""
        self.network = network
        self._layers: list[Layer] = []
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
        layers = [part for part in network.modules() if isinstance(part, kinds) and part.track_running_stats]
        if not layers:
            raise ConfigurationError(
                "the model has no BatchNorm layer that keeps statistics to make images from",
                field="spec.model",
                remedy="give it torch.nn.BatchNorm2d layers, or take another algorithm",
            )
        for layer in layers:
            layer.register_forward_pre_hook(self._see)

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Layer]]:
        """Return the logits of `images` and the statistics on the way to them."""
        self._layers = []
        logits: Tensor = self.network(images)
        return logits, self._layers

    def _see(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(values, dim=1, correction=0)
        kept = dict(layer.named_buffers())
        self._layers.append(Layer(mean, variance, kept["running_mean"], kept["running_var"]))


def statistics_distance(layers: Sequence[Layer]) -> Tensor:
    """sum_l ( || mu_l(x) - mu_l || + || sigma^2_l(x) - sigma^2_l || ), Euclidean norms over channels."""
    terms = [
        torch.linalg.vector_norm(layer.mean - layer.kept_mean)
        + torch.linalg.vector_norm(layer.variance - layer.kept_variance)
        for layer in layers
    ]
    return torch.stack(terms).sum()


def statistics_divergence(layers: Sequence[Layer]) -> Tensor:
    """Mean over layers and their channels of KL( N(mu_l, sigma^2_l) || N(mu_l(x), sigma^2_l(x)) ).

    = log(sigma(x) / sigma) - 1/2 ( 1 - (sigma^2 + (mu - mu(x))^2) / sigma^2(x) )
    """
    terms = []
    for layer in layers:
        found, kept = layer.variance + TINY, layer.kept_variance + TINY
        spread = (kept + (layer.kept_mean - layer.mean).square()) / found
        terms.append((0.5 * torch.log(found / kept) - 0.5 * (1 - spread)).mean())
    return torch.stack(terms).mean()


def boundary(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """- mean_i w_i KL( teacher_i || student_i ), w_i = 1 where the two predict different classes, else 0."""
    teacher = functional.log_softmax(teacher_logits, dim=1)
    student = functional.log_softmax(student_logits, dim=1)
    differ = teacher_logits.argmax(1) != student_logits.argmax(1)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return -(divergence * differ).mean()


def uniformity(logits: Tensor) -> Tensor:
    """1 - H(p) / log(classes) with p the mean of the softmax over the batch: 0 where every class is equally
    frequent, 1 where there is one only.
    """
    classes = logits.shape[1]
    if classes == 1:
        return logits.sum() * 0.0
    mean = functional.softmax(logits, dim=1).mean(dim=0)
    return 1 + (mean * torch.log(mean + TINY)).sum() / math.log(classes)


def roughness(images: Tensor) -> Tensor:
    """Mean squared difference between images and themselves after a Gaussian blur of one pixel."""
    channels = images.shape[1]
    offsets = torch.arange(BLUR, device=images.device) - BLUR // 2
    line = torch.exp(-offsets.square() / 2)
    kernel = torch.outer(line, line) / line.sum().square()
    padded = functional.pad(images, [BLUR // 2] * 4, mode="replicate")
    blurred = functional.conv2d(padded, kernel.expand(channels, 1, BLUR, BLUR), groups=channels)
    return functional.mse_loss(blurred, images)
