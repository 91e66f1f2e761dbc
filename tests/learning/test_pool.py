from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engram.data.types import Indices
from engram.learning import pool
from engram.learning.pool import SamplePool

CPU = torch.device("cpu")


class Source:
    """Image i is filled with i; returns read-only float64, as a careless source of a user's own may."""

    shape: tuple[int, int, int] = (1, 2, 2)

    def __init__(self) -> None:
        self.labels: NDArray[np.int64] = np.arange(10)
        self.reads: list[list[int]] = []

    def read(self, indices: Indices) -> NDArray[np.float32]:
        self.reads.append(indices.tolist())
        images = np.broadcast_to(indices.astype(np.float64)[:, None, None, None], (len(indices), 1, 2, 2))
        return images  # type: ignore[return-value]


def test_small_samples_are_read_once() -> None:
    source = Source()
    samples = SamplePool(source, np.array([4, 7, 9]), CPU)
    for _ in range(2):
        assert samples.take(torch.tensor([2, 0]))[:, 0, 0, 0].tolist() == [9.0, 4.0]
    assert source.reads == [[4, 7, 9]]
    assert len(samples) == 3


def test_large_samples_are_read_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CACHE_BYTES", 3 * 16 - 1)
    source = Source()
    samples = SamplePool(source, np.array([4, 7, 9]), CPU)
    assert samples.take(torch.tensor([2, 0])).dtype == torch.float32
    assert source.reads == [[9, 4]]


def test_a_device_with_room_keeps_large_samples_and_reads_them_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "CACHE_BYTES", 2 * 16)
    monkeypatch.setattr(pool, "cache_bytes", lambda device: 3 * 16)
    source = Source()
    samples = SamplePool(source, np.array([4, 7, 9]), CPU)
    assert source.reads == [[4, 7], [9]]
    assert samples.take(torch.tensor([2, 0]))[:, 0, 0, 0].tolist() == [9.0, 4.0]
    assert len(source.reads) == 2


def test_a_gpu_gives_a_quarter_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 << 30, 139 << 30))
    assert pool.cache_bytes(torch.device("cuda")) == 20 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 20, 139 << 30))
    assert pool.cache_bytes(torch.device("cuda")) == pool.CACHE_BYTES
    assert pool.cache_bytes(CPU) == pool.CACHE_BYTES


def test_no_samples_are_an_empty_batch() -> None:
    samples = SamplePool(Source(), np.empty(0, np.int64), CPU)
    assert samples.take(torch.empty(0, dtype=torch.int64)).shape == (0, 1, 2, 2)


def test_a_process_keeps_at_most_a_quarter_of_a_gibibyte_in_each_pool() -> None:
    # Labelled, unlabelled and test samples: three pools in each process of a machine with many workers.
    assert pool.CACHE_BYTES <= 2**28
