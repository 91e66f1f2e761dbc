"""Images that stay on disk: each file is opened when it is asked for, so a folder of any size fits.

Every image becomes RGB of `size` x `size` pixels: the shorter side is scaled to `size` (bilinear with
antialiasing), then the centre is cut out. Files that already have that size are taken as they are. Decoded
images are kept, as bytes, in a cache of bounded size; which ones are kept never changes a value.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from engram.data.types import Indices
from engram.errors import DataError

DEFAULT_SIZE = 64
"""Pixels of a side: Tiny ImageNet's own size, and what networks with small-image stems are made for."""

CACHE_BYTES = 256 * 2**20
"""Decoded images that one source keeps."""

MAX_PIXELS = 80_000_000
"""A file that announces more pixels is refused before it is decoded."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, the usual constants for photographs."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


class ImageFileSource:
    """An ImageSource over image files; `paths` are relative to `root`, shape [n] of bytes (numpy `S`)."""

    def __init__(
        self,
        root: Path,
        paths: NDArray[np.bytes_],
        labels: NDArray[np.int64],
        size: int = DEFAULT_SIZE,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.labels = labels
        self.shape: tuple[int, int, int] = (3, size, size)
        self._root, self._paths, self._size = root, paths, size
        self._cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._capacity = cache_bytes // (3 * size * size)
        std = np.asarray(STD).reshape(3, 1, 1)
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._offset = (-np.asarray(MEAN).reshape(3, 1, 1) / std).astype(np.float32)

    def path(self, index: int) -> Path:
        """Return the file of the image at `index`."""
        return self._root / os.fsdecode(self._paths[index])

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return the images at `indices`, shape [k, 3, size, size]. Raises DataError naming a bad file."""
        found = np.empty((len(indices), *self.shape), np.float32)
        for row, index in enumerate(indices.tolist()):
            found[row] = self._pixels(index)
        found *= self._scale
        found += self._offset
        return found

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        pixels = self._cache.get(index)
        if pixels is not None:
            self._cache.move_to_end(index)
            return pixels
        pixels = decode(self.path(index), self._size)
        if self._capacity:
            self._cache[index] = pixels
            if len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        return pixels


def decode(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the image of a file, shape [3, size, size]. Raises DataError when it is missing or corrupt."""
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{path}: {width} x {height} pixels are more than the {MAX_PIXELS} allowed")
            image.draft(None, (2 * size, 2 * size))  # lets a large JPEG be decoded at a fraction of its size
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, image_module.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); copy the file again") from error
    width, height = picture.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), image_module.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(np.asarray(picture, np.uint8).transpose(2, 0, 1))


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("image folders need Pillow: pip install 'engram[train]'") from error
    return Image
