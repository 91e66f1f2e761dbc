"""Jobs, small data sets and files for the data tests. Session scope, so that hypothesis may use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.data import DataSet
from engram.data.sources.arrays import ArraySource, content_digest
from engram.data.sources.idx import FILES
from engram.spec.job import FederatedIncrementalJob


@pytest.fixture(scope="session")
def make_job() -> Callable[..., FederatedIncrementalJob]:
    """Return a job of `workers` workers; keys of `dataset` and `tasks` are the file's own."""

    def make(
        workers: int | Sequence[dict[str, Any]] = 3,
        *,
        seed: int = 0,
        tasks: dict[str, Any] | None = None,
        **dataset: Any,
    ) -> FederatedIncrementalJob:
        groups = [{"name": "edge", "replicas": workers}] if isinstance(workers, int) else list(workers)
        spec: dict[str, Any] = {"seed": seed, "dataset": dataset, "workers": groups}
        if tasks is not None:
            spec["tasks"] = tasks
        return FederatedIncrementalJob.model_validate({"metadata": {"name": "job"}, "spec": spec})

    return make


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., DataSet]:
    """Return a set with `counts[c]` training and `test` test images of class c, sorted by class as files are.

    Each image holds its own position in its one pixel.
    """

    def source(labels: NDArray[np.int64]) -> ArraySource:
        return ArraySource(
            np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1), labels, full_scale=1
        )

    def make(counts: Sequence[int] = (40,) * 10, test: int = 5) -> DataSet:
        train = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
        tests = np.repeat(np.arange(len(counts)), test).astype(np.int64)
        names = tuple(f"class {label}" for label in range(len(counts)))
        return DataSet("small", source(train), source(tests), names, content_digest(train, tests))

    return make


@pytest.fixture(scope="session")
def write_idx() -> Callable[[Path], Path]:
    """Write four small IDX files into a folder: image i of a part is filled with i, labels are i mod 10."""

    def encode(array: NDArray[np.uint8]) -> bytes:
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()

    def write(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        for images, labels, count in ((FILES[0], FILES[1], 30), (FILES[2], FILES[3], 20)):
            values = np.arange(count, dtype=np.uint8)
            pixels = np.broadcast_to(values[:, None, None], (count, 4, 6)).copy()
            (folder / images).write_bytes(encode(pixels))
            (folder / labels).write_bytes(encode(values % 10))
        return folder

    return write


@pytest.fixture(scope="session")
def write_image() -> Callable[..., None]:
    """Write an image file of one colour, making its folders."""
    from PIL import Image

    def write(
        path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (8, 8)
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)

    return write
