"""A round's updates for rules that need all of them at once: on the checkpoint's volume, read in blocks.

The file has no name: its room is free again when the round is closed, and when the process is killed. All
updates of a round are laid out alike, one after the other, so that a block of a tensor is found by its place.
Without a directory the updates stay in memory: a run that keeps no checkpoint has no volume either.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.errors import CheckpointError
from engram.federation.messages import EMPTY, Tensors
from engram.federation.tensors import ALIGNMENT, Buffer, buffers_of

BLOCK = 1 << 16
"""Elements of a tensor that are combined at once ..."""
VALUES = 1 << 21
"""... or fewer, so that the blocks of all updates together have at most so many float64 numbers (16 MiB)."""


class Spool:
    """The updates of the open round, by worker; they count in the order of the workers' names."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._model: Tensors = EMPTY
        self._offsets: dict[str, int] = {}
        self._size = 0
        self._held: dict[str, Tensors] = {}
        """Updates by worker; empty ones lie in the file."""
        self._places: dict[str, int] = {}
        self._file: int | None = None
        """Descriptor of the file; None: everything is in memory."""
        self._closing: weakref.finalize[[int], Spool] | None = None

    def keep_in(self, directory: Path) -> None:
        """Keep updates on the volume of `directory` from now on."""
        self._directory = directory

    def begin(self, weights: Tensors) -> None:
        """Start a round of updates of the model `weights`, with none."""
        self.clear()
        self._model, self._size = weights, 0
        self._offsets = {}
        for name, array in weights.items():
            self._offsets[name] = self._size
            self._size += array.nbytes + -array.nbytes % ALIGNMENT

    def add(self, worker: str, weights: Tensors) -> None:
        """Keep a worker's validated update. Raises CheckpointError, with nothing kept."""
        place = len(self._places)
        if self._directory is None:
            self._held[worker] = weights
        else:
            ordered = {name: weights[name] for name in self._model}
            try:
                self._write(self._directory, buffers_of(ordered), place * self._size)
            except OSError as error:
                raise CheckpointError(
                    f"{self._directory}: an update cannot be kept until its round is closed: "
                    f"{error.strerror or error}; the last checkpoint is kept: make room (the rule needs a "
                    "model a worker) or give permission and continue with --resume"
                ) from error
        self._places[worker] = place

    def clear(self) -> None:
        """Forget the updates and free their room."""
        self._held, self._places = {}, {}
        if self._closing is not None:
            self._closing()
        self._file = self._closing = None

    def __len__(self) -> int:
        """Return how many updates there are."""
        return len(self._places)

    def blocks(
        self, name: str, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield (start, values [updates, elements]) of a tensor, block by block; the caller may change them.

        `chosen` are the updates that count, by their place in the order of names; None: all.
        """
        names = sorted(self._places)
        workers = names if chosen is None else [names[index] for index in chosen]
        size = self._model[name].size
        width = max(1, min(BLOCK, VALUES // max(1, len(names))))
        for start in range(0, size, width):
            block = np.empty((len(workers), min(width, size - start)))
            for row, worker in zip(block, workers, strict=True):
                row[:] = self._piece(worker, name, start, len(row))
            yield start, block

    def updates(self) -> list[list[NDArray[Any]]]:
        """Return all updates as arrays that may be written to; on a volume they are read when looked at, and
        what is written stays in memory.
        """
        workers = sorted(self._places)
        if self._file is None:
            return [[np.array(array) for array in self._held[worker].values()] for worker in workers]
        mapped = mmap.mmap(self._file, len(workers) * self._size, access=mmap.ACCESS_COPY)
        starts = [self._places[worker] * self._size for worker in workers]
        return [
            [
                np.ndarray(array.shape, array.dtype, mapped, start + self._offsets[name])
                for name, array in self._model.items()
            ]
            for start in starts
        ]

    def _write(self, directory: Path, parts: Sequence[Buffer], offset: int) -> None:
        if self._file is None:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory) as file:
                self._file = os.dup(file.fileno())
            self._closing = weakref.finalize(self, os.close, self._file)
        for part in parts:
            view = memoryview(part)
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written

    def _piece(self, worker: str, name: str, start: int, count: int) -> NDArray[Any]:
        like = self._model[name]
        if self._file is None:
            return self._held[worker][name].reshape(-1)[start : start + count]
        offset = self._places[worker] * self._size + self._offsets[name] + start * like.itemsize
        data = os.pread(self._file, count * like.itemsize, offset)
        return np.frombuffer(data, like.dtype, count)
