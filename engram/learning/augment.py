"""Augmentation of training batches, vectorised over the batch.

An augmentation is a callable `(images, generator) -> images` on tensors [b, channels, height, width]. It
draws from the given CPU generator only, so that a restarted worker sees the same images. One of your own is a
class without constructor arguments, named by dotted path in `spec.training.augmentation`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from engram.errors import ConfigurationError
from engram.spec.dotted import is_dotted, load_dotted
from engram.spec.parameters import AUGMENTATIONS


class Augmentation(Protocol):
    """What a training batch goes through."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return new images of the same shape; `images` must not be changed."""
        ...


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """No augmentation."""
    return images


class Shift:
    """Shift each image by up to `pixels` in both directions, repeating the edge; mirror half of them if
    asked.
    """

    def __init__(self, pixels: int, *, mirror: bool = False) -> None:
        self.pixels = pixels
        self.mirror = mirror

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the shifted images, gathered in one indexing operation."""
        count, channels, height, width = images.shape
        offsets = torch.randint(-self.pixels, self.pixels + 1, (2, count, 1), generator=generator)
        rows = (torch.arange(height) + offsets[0]).clamp_(0, height - 1)
        columns = (torch.arange(width) + offsets[1]).clamp_(0, width - 1)
        if self.mirror:
            flipped = torch.rand(count, 1, generator=generator) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        pixels = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(count, 1, height * width)
        pixels = pixels.to(images.device).expand(count, channels, -1)
        return images.flatten(2).gather(2, pixels).view_as(images)


def build_augmentation(name: str) -> Augmentation:
    """Return the augmentation that `spec.training.augmentation` names.

    shift1: shift by up to one pixel; crop-flip: shift by up to four (pad 4 and crop) and mirror half.
    """
    field = "spec.training.augmentation"
    if name == "none":
        return unchanged
    if name == "shift1":
        return Shift(1)
    if name == "crop-flip":
        return Shift(4, mirror=True)
    if not is_dotted(name):
        raise ConfigurationError(
            f"unknown augmentation {name!r}",
            field=field,
            remedy=f"write one of {', '.join(AUGMENTATIONS)} or package.module:Class",
        )
    kind = load_dotted(name, field)
    try:
        made: Any = kind()
    except TypeError as error:
        raise ConfigurationError(
            f"{name} must be a class without constructor arguments: {error}", field=field
        ) from error
    if not callable(made):
        raise ConfigurationError(f"{name} is not callable on (images, generator)", field=field)
    augmentation: Augmentation = made
    return augmentation
