"""What a worker keeps: which past it is of, and what a crash or another job leaves behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.errors import CheckpointError
from engram.federation.compression.arrays import Float16, Int8
from engram.federation.compression.packer import LOST, Packer
from engram.federation.compression.residuals import (
    KEPT,
    FileResiduals,
    MemoryResiduals,
    Position,
    Residuals,
)
from engram.federation.messages import Tensors, Train, Update


def owed(value: float) -> Tensors:
    return {"w": np.full((2, 3), value, np.float32), "one": np.array(value, np.float32)}


def value_of(residuals: Residuals, position: Position) -> float | None:
    found = residuals.read(position)
    return None if found is None else float(found["w"][0, 0])


@pytest.fixture(params=["memory", "files"])
def residuals(request: pytest.FixtureRequest, tmp_path: Path) -> Residuals:
    return MemoryResiduals() if request.param == "memory" else FileResiduals(tmp_path / "a" / "b", "job")


def test_what_is_written_is_read(residuals: Residuals) -> None:
    assert residuals.read((1, 1)) is None
    residuals.write((1, 1), owed(1), None)
    found = residuals.read((1, 1))
    assert found is not None
    assert all(array.dtype == np.float32 for array in found.values())
    assert {name: array.shape for name, array in found.items()} == {"w": (2, 3), "one": ()}
    assert value_of(residuals, (1, 1)) == 1


def test_the_newest_are_kept_and_the_one_that_counts(residuals: Residuals) -> None:
    residuals.write((1, 1), owed(1), None)
    for round in range(2, 9):
        residuals.write((1, round), owed(round), (1, 1))
    kept = [round for round in range(1, 9) if value_of(residuals, (1, round)) is not None]
    assert kept == [1, *range(9 - KEPT, 9)]


def test_a_past_that_did_not_happen_is_forgotten(residuals: Residuals) -> None:
    residuals.write((1, 1), owed(1), None)
    for position, counted in (((1, 2), (1, 1)), ((2, 1), (1, 2)), ((1, 2), (1, 1))):
        residuals.write(position, owed(9), counted)
    assert residuals.read((2, 1)) is None
    assert value_of(residuals, (1, 1)) == 1
    # The aggregator starts afresh: no update counts.
    residuals.write((1, 1), owed(5), None)
    assert residuals.read((1, 2)) is None
    assert value_of(residuals, (1, 1)) == 5


def test_files_outlive_the_process_and_leave_nothing_half_written(tmp_path: Path) -> None:
    FileResiduals(tmp_path, "job").write((3, 12), owed(7), None)
    assert value_of(FileResiduals(tmp_path, "job"), (3, 12)) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["residual-3-12.bin"]


def test_what_is_damaged_or_of_another_job_is_lost(tmp_path: Path) -> None:
    FileResiduals(tmp_path, "job").write((1, 1), owed(7), None)
    assert FileResiduals(tmp_path, "other job").read((1, 1)) is None
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], whole[:40] + b"\xff" + whole[41:]):
        path.write_bytes(damaged)
        assert FileResiduals(tmp_path, "job").read((1, 1)) is None


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be kept: File exists: give permission"):
        FileResiduals(tmp_path / "file", "job").write((1, 1), owed(1), None)


def test_a_full_disk_costs_no_worker_and_room_is_used_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    residuals = FileResiduals(tmp_path, "job")
    residuals.write((1, 1), owed(1), None)
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        residuals.write((1, 2), owed(2), (1, 1))
        residuals.write((1, 3), owed(3), (1, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["residual-1-1.bin"]
    assert "cannot be kept: No space left on device: make room" in caplog.text
    assert [value_of(residuals, (1, round)) for round in (1, 2, 3)] == [1, 2, 3]
    assert value_of(FileResiduals(tmp_path, "job"), (1, 2)) is None, "a process that is killed loses it"
    residuals.write((1, 3), owed(4), (1, 2))
    assert value_of(residuals, (1, 3)) == value_of(FileResiduals(tmp_path, "job"), (1, 3)) == 4
    for round in range(4, 9):
        residuals.write((1, round), owed(round), (1, round - 1))
    assert value_of(residuals, (1, 2)) is None, "it is outdated"


# The packer, which keeps them.

BEFORE: Tensors = {"w": np.zeros((2, 3), np.float32), "one": np.zeros((), np.float32)}


def order(round: int, counted: Position | None) -> Train:
    return Train(1, round, BEFORE, (), counted=counted)


def update(round: int, samples: int = 5) -> Update:
    weights: Tensors = {} if not samples else {**BEFORE, "w": np.array([[1, 2, 3], [4, 5, 6.1]], np.float32)}
    return Update(1, round, samples, weights, {"loss": 0.5})


def test_what_is_owed_is_kept_before_the_update_is_sent(residuals: Residuals) -> None:
    packer = Packer(Int8(), residuals)
    first = packer.pack(update(1), order(1, None))
    assert set(first.weights) == {"0/q", "0/s", "1/q", "1/s"}
    left = residuals.read((1, 1))
    assert left is not None
    assert 0 < np.abs(left["w"]).max() < 6.1 / 127
    assert LOST not in first.metrics


def test_a_lost_residual_is_reported_with_the_update() -> None:
    packer = Packer(Int8(), MemoryResiduals())
    packed = packer.pack(update(2), order(2, (1, 1)))
    assert packed.metrics == {"loss": 0.5, LOST: 1.0}
    assert packed.weights.keys() == packer.pack(update(1), order(1, None)).weights.keys()


def test_an_update_that_never_counted_owes_nothing(residuals: Residuals) -> None:
    packer = Packer(Int8(), residuals)
    packer.pack(update(1), order(1, None))
    wanted = packer.pack(update(3), order(3, (1, 1)))
    packer.pack(update(2), order(2, (1, 1)))  # came too late, say
    found = packer.pack(update(3), order(3, (1, 1)))
    assert {key: array.tobytes() for key, array in found.weights.items()} == {
        key: array.tobytes() for key, array in wanted.weights.items()
    }


def test_an_abstaining_worker_sends_and_keeps_nothing(residuals: Residuals) -> None:
    nothing = update(1, samples=0)
    assert Packer(Int8(), residuals).pack(nothing, order(1, None)) is nothing
    assert residuals.read((1, 1)) is None


def test_float16_keeps_nothing(residuals: Residuals) -> None:
    packed = Packer(Float16(), residuals).pack(update(2), order(2, (1, 1)))
    assert LOST not in packed.metrics
    assert residuals.read((1, 2)) is None
