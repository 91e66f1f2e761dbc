"""A small convolutional network: 3x3 convolutions, each followed by 2x2 max pooling, and one dense layer."""

from __future__ import annotations

from torch import nn

from engram.errors import ConfigurationError
from engram.learning.models.layers import Halving, channels_last, normalisation
from engram.spec.parameters import CnnParameters


def cnn(shape: tuple[int, int, int], parameters: CnnParameters) -> nn.Module:
    """Return the feature extractor; its size is `parameters.dense`.

    With the default channels [16, 32] and dense 96 a head of 10 rows makes 156,394 parameters on 1x28x28 and
    18,154 on 1x8x8.
    """
    channels, height, width = shape
    if min(height, width) >> len(parameters.channels) == 0:
        raise ConfigurationError(
            f"{len(parameters.channels)} poolings do not fit images of {height}x{width}",
            field="spec.model.parameters.channels",
            remedy=f"list at most {min(height, width).bit_length() - 1} channels",
        )
    layers: list[nn.Module] = []
    for width_out in parameters.channels:
        layers += [
            nn.Conv2d(channels, width_out, kernel_size=3, padding=1),
            normalisation(parameters.norm, width_out),
            # ReLU after pooling gives the same values as before it, on a quarter of the pixels.
            Halving(),
            nn.ReLU(),
        ]
        channels, height, width = width_out, height // 2, width // 2
    dense = nn.Linear(channels * height * width, parameters.dense)
    return channels_last(nn.Sequential(*layers, nn.Flatten(), dense, nn.ReLU()))
