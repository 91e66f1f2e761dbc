"""Samples at hand for training or evaluation: kept as one tensor where they are small, read on demand where
they are not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engram.data.types import ImageSource, Indices

CACHE_BYTES = 1 << 30
"""Samples that take more than this as float32 are read batch by batch."""


class SamplePool:
    """The images at `positions` of a source; index i means positions[i]."""

    def __init__(self, source: ImageSource, positions: Indices, device: torch.device) -> None:
        self.positions = positions
        self._source = source
        self._device = device
        small = 4 * math.prod(source.shape) * len(positions) <= CACHE_BYTES
        self._images = torch.from_numpy(source.read(positions)).to(device) if small else None

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, index: Tensor) -> Tensor:
        """Return the images at `index` [b] (on the CPU), shape [b, channels, height, width]."""
        if self._images is not None:
            return self._images.index_select(0, index.to(self._device))
        return torch.from_numpy(self._source.read(self.positions[index.numpy()])).to(self._device)
