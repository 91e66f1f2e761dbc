"""Samples at hand for training or evaluation: kept as one tensor on the device where they fit, read on demand
where they do not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from engram.data.types import ImageSource, Indices
from engram.learning.device import moved

CACHE_BYTES = 1 << 28
"""Samples that take more than this in main memory, as float32, are read batch by batch. A process may hold
three pools (labelled, unlabelled, test), and a machine as many processes as a job has workers."""
FREE_SHARE = 0.25
"""Of a GPU's free memory, what one pool may take: three pools leave it more than a third for training."""


def cache_bytes(device: torch.device) -> int:
    """Return how many bytes of samples are kept on `device`."""
    if device.type != "cuda":
        return CACHE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return max(CACHE_BYTES, int(FREE_SHARE * free))


def read_images(source: ImageSource, positions: Indices, device: torch.device) -> Tensor:
    """Return the images at `positions`, shape [n, channels, height, width], on `device`.

    A source of the user's own may return a read-only view or another float type; torch wants neither.
    """
    return moved(torch.from_numpy(np.require(source.read(positions), np.float32, ["C", "W"])), device)


def read_all(source: ImageSource, positions: Indices, device: torch.device) -> Tensor:
    """Return what `read_images` does, with no more than CACHE_BYTES of it in main memory at a time."""
    parts = math.ceil(4 * math.prod(source.shape) * len(positions) / CACHE_BYTES)
    if parts <= 1:
        return read_images(source, positions, device)
    images = torch.empty(len(positions), *source.shape, device=device)
    done = 0
    for part in np.array_split(positions, parts):
        images[done : done + len(part)] = read_images(source, part, device)
        done += len(part)
    return images


class SamplePool:
    """The images at `positions` of a source; index i means positions[i]."""

    def __init__(self, source: ImageSource, positions: Indices, device: torch.device) -> None:
        self.positions = positions
        self._source = source
        self._device = device
        fits = 4 * math.prod(source.shape) * len(positions) <= cache_bytes(device)
        self._images = read_all(source, positions, device) if fits else None

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, index: Tensor) -> Tensor:
        """Return the images at `index` [b] (on the CPU), shape [b, channels, height, width]."""
        if self._images is not None:
            return self._images.index_select(0, moved(index, self._device))
        return read_images(self._source, self.positions[index.numpy()], self._device)
