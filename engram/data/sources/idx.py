"""MNIST and Fashion-MNIST: the IDX format, plain or gzipped (yann.lecun.com/exdb/mnist, "file formats").

A file is the magic number 0 0 8 d (8: unsigned bytes, d: number of dimensions), d sizes as big-endian 32-bit
integers, then the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.data.sources.arrays import ArraySource, check_labels, content_digest
from engram.data.sources.files import Original, check_original, find_file, read_bytes, require_root
from engram.data.types import DataSet
from engram.errors import DataError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip

MNIST_ORIGINALS = {
    "train-images-idx3-ubyte": Original(47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": Original(60_008, "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": Original(7_840_016, "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": Original(10_008, "27ae3e4e09519cfbb04c329615203637"),
}
"""Unpacked, as published on yann.lecun.com."""

FASHION_ORIGINALS = {
    "train-images-idx3-ubyte": Original(47_040_016, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "train-labels-idx1-ubyte": Original(60_008, "9018921c3c673c538a1fc5bad174d6f9"),
    "t10k-images-idx3-ubyte": Original(7_840_016, "8181f5470baa50b63fa0f6fddb340f0a"),
    "t10k-labels-idx1-ubyte": Original(10_008, "15d484375f8d13e6eb1aabb0c3f46965"),
}
"""Unpacked, as Debian's package holds them."""


def load_fashion_mnist(root: Path | None) -> DataSet:
    """Return Fashion-MNIST from `root`, or from Debian's folder when None. Mean .2860, deviation .3530."""
    advice = f"install the Debian package dataset-fashion-mnist ({DEBIAN_FASHION_MNIST}) or name your folder"
    return _load(
        "fashion-mnist",
        root or DEBIAN_FASHION_MNIST,
        f"{advice} in spec.dataset.path",
        FASHION_CLASSES,
        FASHION_ORIGINALS,
        (0.2860, 0.3530),
    )


def load_mnist(root: Path | None) -> DataSet:
    """Return MNIST from `root`. Mean .1307, deviation .3081."""
    folder = require_root(root, "mnist", f"the files {', '.join(FILES)}, plain or .gz")
    digits = tuple(str(digit) for digit in range(10))
    advice = "put the four files of MNIST there, plain or .gz"
    return _load("mnist", folder, advice, digits, MNIST_ORIGINALS, (0.1307, 0.3081))


def _load(
    name: str,
    root: Path,
    advice: str,
    class_names: tuple[str, ...],
    originals: Mapping[str, Original],
    normal: tuple[float, float],
) -> DataSet:
    arrays = []
    for file in FILES:
        path = find_file(root, (file, f"{file}.gz"))
        if path is None:
            raise DataError(
                f"{root / file}[.gz] not found; data set {name} is the four files {', '.join(FILES)}, "
                f"plain or .gz: {advice}"
            )
        content = read_bytes(path)
        array = parse_idx(content, 3 if "images" in file else 1, path)
        check_original(content, originals.get(file), path)
        arrays.append(array)
    parts = []
    for images, labels, file in ((arrays[0], arrays[1], FILES[1]), (arrays[2], arrays[3], FILES[3])):
        ids = labels.astype(np.int64)
        check_labels(ids, len(class_names), len(images), str(root / file))
        parts.append(ArraySource(images[:, None], ids, mean=normal[:1], std=normal[1:]))
    train, test = parts
    if train.shape != test.shape:
        raise DataError(f"{root}: training images are {train.shape[1:]}, test images {test.shape[1:]} pixels")
    return DataSet(name, train, test, class_names, content_digest(*arrays))


def parse_idx(content: bytes, dimensions: int, path: Path | str) -> NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes. Raises DataError unless whole and of that rank."""
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path}: cut short: {len(content)} bytes are not even an IDX header of {header}")
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic:
        raise DataError(
            f"{path}: not an IDX file: it starts with {content[:4].hex()} instead of {magic.hex()}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected = header + math.prod(shape)
    if len(content) != expected:
        problem = "cut short" if len(content) < expected else "longer than its header says"
        raise DataError(
            f"{path}: {problem}: its header announces {' x '.join(map(str, shape))}, which makes {expected} "
            f"bytes, but it has {len(content)}; copy the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
