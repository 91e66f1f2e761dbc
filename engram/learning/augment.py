"""Augmentation of training batches, vectorised over the batch.

An augmentation is a callable `(images, generator) -> images` on tensors [b, channels, height, width]. It
draws from the given CPU generator only, so that a restarted worker sees the same images. What it draws is
small and is moved to the images at once (`device.moved`); all work on pixels is done where they are. One of
your own is a class without constructor arguments, named by dotted path in `spec.training.augmentation`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from engram.errors import ConfigurationError
from engram.learning.device import moved
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
        device = images.device
        drawn = torch.randint(-self.pixels, self.pixels + 1, (2, count, 1), generator=generator)
        offsets = moved(drawn, device)
        rows = (torch.arange(height, device=device) + offsets[0]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=device) + offsets[1]).clamp_(0, width - 1)
        if self.mirror:
            flipped = moved(torch.rand(count, 1, generator=generator), device) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        pixels = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(count, 1, height * width)
        return images.flatten(2).gather(2, pixels.expand(count, channels, -1)).view_as(images)


SHIFT_SHARE, GAIN, NOISE, CUTOUT_SHARE = 0.1, 0.2, 0.1, 0.3


def strong(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to a tenth, change gain, add noise and cut a square out: for pseudo-labelled images.

    What FixMatch (Sohn et al. 2020, section 2.3) calls strong augmentation, of operations that suit any
    image and need no loop over samples: shift by up to 10 % in both directions, gain uniform in 1 +- 0.2,
    Gaussian noise of standard deviation 0.1 (images are normalised), and a square of 30 % of the smaller
    side that takes the image's mean.
    """
    count, _, height, width = images.shape
    device = images.device
    smaller = min(height, width)
    shifted = Shift(max(1, round(SHIFT_SHARE * smaller)))(images, generator)
    gain = 1 + GAIN * (2 * moved(torch.rand(count, 1, 1, 1, generator=generator), device) - 1)
    noise = NOISE * moved(torch.randn(images.shape, generator=generator), device)
    side = max(1, round(CUTOUT_SHARE * smaller))
    corner = moved(torch.rand(2, count, 1, generator=generator), device)
    top, left = (corner[0] * (height - side + 1)).floor(), (corner[1] * (width - side + 1)).floor()
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    down = (rows >= top) & (rows < top + side)
    along = (columns >= left) & (columns < left + side)
    hole = (down.unsqueeze(2) & along.unsqueeze(1)).unsqueeze(1)
    changed = torch.addcmul(noise, shifted, gain)
    return torch.where(hole, images.mean(dim=(1, 2, 3), keepdim=True), changed)


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
