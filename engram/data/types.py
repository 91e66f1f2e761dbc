"""The values of `engram.data`: where images come from, and which worker holds which of them in which task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
"""Positions in an ImageSource."""


class ImageSource(Protocol):
    """Labelled images that are read on demand."""

    labels: NDArray[np.int64]
    """Label ids, shape [n]."""
    shape: tuple[int, int, int]
    """Channels, height, width of every image."""

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return the images at `indices`, shape [k, channels, height, width], normalised for training.

        Raises DataError when a file is corrupt.
        """
        ...


@dataclass(frozen=True)
class DataSet:
    """A data set with its own train and test parts."""

    name: str
    train: ImageSource
    test: ImageSource
    class_names: tuple[str, ...]
    """Index = label id."""
    sha256: str
    """Digest of the content that decides results; equal data give equal digests on every machine."""


@dataclass(frozen=True)
class TaskShare:
    """What one worker holds of one task."""

    labelled: Indices
    unlabelled: Indices
    """Their labels exist in `DataSet.train.labels` but serve nothing except the metric of pseudo-label
    accuracy."""


@dataclass(frozen=True)
class WorkerShare:
    """What one worker holds over the whole job; `tasks[t - 1]` is its share of task t."""

    worker: str
    tasks: tuple[TaskShare, ...]

    @property
    def samples(self) -> int:
        """All samples, labelled or not."""
        return sum(len(share.labelled) + len(share.unlabelled) for share in self.tasks)


@dataclass(frozen=True)
class Split:
    """Tasks, shares and test samples of a job: a pure function of its spec, its workers and the labels."""

    tasks: tuple[tuple[int, ...], ...]
    """Label ids of each task in learning order."""
    shares: tuple[WorkerShare, ...]
    """In the order of `FederatedIncrementalJob.workers()`."""
    test: Indices
    """Positions in `DataSet.test` (or in `DataSet.train` where `validation` is set) that evaluation uses."""
    validation: bool
    """True when `validationShare` holds out training data and evaluation runs on it."""
    digest: str
    warnings: tuple[str, ...] = ()
    """Sentences that the user must see, such as a worker that holds nothing of a task."""
