"""Images in memory: kept as the bytes of the file, converted to normalised float32 only when read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.data.types import Indices
from engram.errors import DataError


class ArraySource:
    """An ImageSource over one array, shape [n, channels, height, width].

    `read` returns (value / full_scale - mean) / std per channel; `full_scale` is 255 for usual bytes.
    Arrays of uint8 stay uint8 in memory, a quarter of what float32 takes.
    """

    def __init__(
        self,
        images: NDArray[Any],
        labels: NDArray[np.int64],
        *,
        full_scale: float = 255.0,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        self.images = images
        self.labels = labels
        self.shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        self._scale = (1.0 / (full_scale * _column(std))).astype(np.float32)
        self._offset = (-_column(mean) / _column(std)).astype(np.float32)

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return the images at `indices`, shape [k, channels, height, width]."""
        found = self.images[indices].astype(np.float32)
        found *= self._scale
        found += self._offset
        return found


def _column(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1, 1, 1)


def content_digest(*arrays: NDArray[Any]) -> str:
    """Return the SHA-256 over type, shape and bytes of each array."""
    digest = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array)
        if plain.dtype.byteorder == ">":
            plain = plain.astype(plain.dtype.newbyteorder("<"))
        digest.update(f"{plain.dtype.name}{plain.shape}".encode())
        digest.update(plain.data if plain.size else b"")
    return digest.hexdigest()


def check_labels(labels: NDArray[np.int64], class_count: int, images: int, where: str) -> None:
    """Raise DataError naming `where` unless there is one label an image, each in 0..class_count - 1."""
    if len(labels) != images:
        raise DataError(
            f"{where}: {images} images but {len(labels)} labels; the files do not belong together"
        )
    if len(labels) == 0:
        raise DataError(f"{where}: holds no images")
    if labels.min() < 0 or labels.max() >= class_count:
        wrong = labels[(labels < 0) | (labels >= class_count)][0]
        raise DataError(f"{where}: label {wrong} is not in 0..{class_count - 1}; the file is corrupt")
