"""Building blocks that the built-in models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.spec.parameters import Norm


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """Return the normalisation layer for `channels` channels.

    group: GroupNorm (Wu and He 2018) with at most 32 groups of at least 4 channels; unlike BatchNorm it keeps
    no statistics, which break under non-iid data.
    """
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = max(n for n in range(1, 33) if n == 1 or (channels % n == 0 and channels // n >= 4))
    return nn.GroupNorm(groups, channels)


class Halving(nn.MaxPool2d):
    """2x2 max pooling. Where nobody wants a gradient the CPU needs less than half of the time for it: PyTorch
    notes where every maximum was, for a backward pass that will not come.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the largest of every 2x2 pixels, [b, channels, height // 2, width // 2]."""
        if torch.is_grad_enabled() or images.device.type != "cpu":
            pooled: Tensor = super().forward(images)
            return pooled
        height, width = images.shape[2] // 2 * 2, images.shape[3] // 2 * 2
        rows = torch.maximum(images[:, :, 0:height:2, :width], images[:, :, 1:height:2, :width])
        return torch.maximum(rows[:, :, :, 0::2], rows[:, :, :, 1::2])


def channels_last(network: nn.Module) -> nn.Module:
    """Return `network` with its convolutions in the memory format that is fastest (NHWC); in place.

    Max pooling of 28x28 images on one core takes a tenth of the time. Values, names and shapes stay.
    """
    for parameter in network.parameters():
        if parameter.dim() == 4:
            # Unlike `contiguous`, `to` also marks a convolution of one input channel.
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return network
