"""Samples at hand for training or evaluation: kept as one tensor where they are small, read on demand where
they are not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from engram.data.types import ImageSource, Indices

CACHE_BYTES = 1 << 28
"""Samples that take more than this as float32 are read batch by batch. A process may hold three pools
(labelled, unlabelled, test), and a machine as many processes as a job has workers."""


def read_images(source: ImageSource, positions: Indices, device: torch.device) -> Tensor:
    """Return the images at `positions`, shape [n, channels, height, width], on `device`.

    A source of the user's own may return a read-only view or another float type; torch wants neither.
    """
    return torch.from_numpy(np.require(source.read(positions), np.float32, ["C", "W"])).to(device)


class SamplePool:
    """The images at `positions` of a source; index i means positions[i]."""

    def __init__(self, source: ImageSource, positions: Indices, device: torch.device) -> None:
        self.positions = positions
        self._source = source
        self._device = device
        small = 4 * math.prod(source.shape) * len(positions) <= CACHE_BYTES
        self._images = read_images(source, positions, device) if small else None

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, index: Tensor) -> Tensor:
        """Return the images at `index` [b] (on the CPU), shape [b, channels, height, width]."""
        if self._images is not None:
            return self._images.index_select(0, index.to(self._device))
        return read_images(self._source, self.positions[index.numpy()], self._device)
