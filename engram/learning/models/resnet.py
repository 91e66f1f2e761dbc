"""Residual networks for small images (He et al. 2016): ResNet-18 with a 3x3 stem, and the CIFAR ResNet-32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from engram.learning.models.layers import channels_last, normalisation
from engram.spec.parameters import Norm, ResNet18Parameters, ResNet32Parameters


def resnet18(shape: tuple[int, int, int], parameters: ResNet18Parameters) -> nn.Module:
    """Return ResNet-18's extractor of 8 x width features: a 3x3 stem without pooling, four stages of two
    blocks; with width 64 and a head of 10 rows 11,173,962 parameters on 3x32x32.
    """
    widths = [parameters.width << stage for stage in range(4)]
    return _resnet(shape[0], widths, blocks=2, norm=parameters.norm, projection=True)


def resnet32(shape: tuple[int, int, int], parameters: ResNet32Parameters) -> nn.Module:
    """Return the extractor of section 4.2 with n = 5 and 4 x width features: shortcuts without parameters
    (option A); with width 16 and a head of 10 rows 464,154 parameters on 3x32x32.
    """
    widths = [parameters.width << stage for stage in range(3)]
    return _resnet(shape[0], widths, blocks=5, norm=parameters.norm, projection=False)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut (figure 2); the first may halve the image."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, projection: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = normalisation(norm, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = normalisation(norm, outputs)
        self.shortcut: nn.Module
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif projection:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), normalisation(norm, outputs)
            )
        else:
            self.shortcut = PaddedShortcut(outputs - inputs, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        hidden = functional.relu(self.first_norm(self.first(images)))
        return functional.relu(self.second_norm(self.second(hidden)) + self.shortcut(images))


class PaddedShortcut(nn.Module):
    """Option A of section 3.3: every stride-th pixel, additional channels are zero."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Return the subsampled, zero-padded images."""
        smaller = images[:, :, :: self.stride, :: self.stride]
        return functional.pad(smaller, (0, 0, 0, 0, 0, self.channels))


class SpatialMean(nn.Module):
    """Global average pooling; unlike AdaptiveAvgPool2d deterministic on every device."""

    def forward(self, images: Tensor) -> Tensor:
        """Return [b, channels]."""
        return images.mean(dim=(2, 3))


def _resnet(channels: int, widths: Sequence[int], *, blocks: int, norm: Norm, projection: bool) -> nn.Module:
    """Return stem, stages (all but the first halve the image) and global average pooling."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
        normalisation(norm, widths[0]),
        nn.ReLU(),
    ]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(Block(inputs, width, stride, norm, projection))
            inputs = width
    network = nn.Sequential(*layers, SpatialMean())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return channels_last(network)
