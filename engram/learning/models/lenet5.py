"""LeNet-5 (LeCun et al. 1998, section II.B) with ReLU and max pooling."""

from __future__ import annotations

from torch import nn

from engram.errors import ConfigurationError
from engram.learning.models.layers import Halving, channels_last, normalisation
from engram.spec.parameters import LeNet5Parameters

FEATURES = 84


def lenet5(shape: tuple[int, int, int], parameters: LeNet5Parameters) -> nn.Module:
    """Return the feature extractor of 84 features; a head of 10 rows makes 61,706 parameters on 1x28x28.

    The paper pads images of 28x28 to 32x32. Below 16x16 the second convolution is padded as well, without
    which nothing would be left of an image of 8x8.
    """
    channels, height, width = shape
    if min(height, width) < 4:
        raise ConfigurationError(
            f"lenet5 needs images of at least 4x4, not {height}x{width}", field="spec.model.name"
        )
    first = 2 if min(height, width) < 32 else 0
    second = 2 if min(height, width) < 16 else 0
    rows, columns = (((side + 2 * first - 4) // 2 + 2 * second - 4) // 2 for side in (height, width))
    network = nn.Sequential(
        nn.Conv2d(channels, 6, kernel_size=5, padding=first),
        normalisation(parameters.norm, 6),
        Halving(),
        nn.ReLU(),
        nn.Conv2d(6, 16, kernel_size=5, padding=second),
        normalisation(parameters.norm, 16),
        Halving(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, 120),
        nn.ReLU(),
        nn.Linear(120, FEATURES),
        nn.ReLU(),
    )
    return channels_last(network)
