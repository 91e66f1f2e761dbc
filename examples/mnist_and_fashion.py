"""Digits and garments as one data set of twenty classes: MNIST has labels 0 to 9, Fashion-MNIST 10 to 19."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.data import DataSet, ImageSource, Indices, load_dataset


class Both:
    """Two image sources one after the other; the labels of the second begin where those of the first end."""

    def __init__(self, first: ImageSource, second: ImageSource, classes: int) -> None:
        self._first, self._second, self._start = first, second, len(first.labels)
        self.labels = np.concatenate([first.labels, second.labels + classes])
        self.shape = first.shape

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return the images at `indices`, each normalised as its own set is."""
        found = np.empty((len(indices), *self.shape), np.float32)
        later = indices >= self._start
        found[~later] = self._first.read(indices[~later])
        found[later] = self._second.read(indices[later] - self._start)
        return found


def load(root: Path | None) -> DataSet:
    """Read both sets below `root`: mnist/ and fashion-mnist/ (without the latter Debian's folder is used).

    Images of both are 1 x 28 x 28.
    """
    folder = root or Path()
    garments = folder / "fashion-mnist"
    first = load_dataset("mnist", folder / "mnist")
    second = load_dataset("fashion-mnist", garments if garments.exists() else None)
    classes = len(first.class_names)
    return DataSet(
        name="mnist-and-fashion",
        train=Both(first.train, second.train, classes),
        test=Both(first.test, second.test, classes),
        class_names=(*first.class_names, *second.class_names),
        sha256=hashlib.sha256(f"{first.sha256}{second.sha256}".encode()).hexdigest(),
    )
