from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.data import load_dataset
from engram.errors import DataError


def arrays(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "train_images": np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": np.zeros((3, 4, 5), np.uint8),
        "test_labels": np.array([0, 1, 2], np.uint8),
    }
    found.update(changes)
    return {key: value for key, value in found.items() if value is not None}


def save(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays(**changes))
    return path


def test_bytes_are_scaled_and_classes_counted(tmp_path: Path) -> None:
    path = save(tmp_path)
    dataset = load_dataset("npz", path)
    assert dataset.train.shape == (1, 4, 5)
    assert dataset.class_names == ("0", "1", "2")
    expected = np.arange(20, 40, dtype=np.float32).reshape(1, 1, 4, 5) / 255
    assert np.allclose(dataset.train.read(np.array([1])), expected)
    assert load_dataset("npz", tmp_path).sha256 == dataset.sha256


def test_floats_are_taken_as_they_are_and_names_given(tmp_path: Path) -> None:
    images = np.linspace(-2, 2, 6 * 3 * 4 * 5).reshape(6, 3, 4, 5)
    save(
        tmp_path,
        train_images=images,
        test_images=np.zeros((3, 3, 4, 5), np.float16),
        class_names=np.array(["cat", "dog", "owl", "elk"]),
    )
    dataset = load_dataset("npz", tmp_path)
    assert dataset.train.shape == (3, 4, 5)
    assert dataset.class_names == ("cat", "dog", "owl", "elk")
    assert np.array_equal(dataset.train.read(np.array([2])), images[2:3].astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_labels": None}, "no array test_labels"),
        ({"train_images": np.zeros((6, 20), np.uint8)}, r"train_images: shape \(6, 20\)"),
        ({"train_images": np.zeros((6, 32, 32, 3), np.uint8)}, "channels last.*transpose"),
        ({"train_images": np.zeros((6, 4, 5), np.int32)}, "type int32"),
        ({"train_images": np.full((6, 4, 5), np.nan, np.float32)}, "not finite"),
        ({"train_images": np.zeros((5, 4, 5), np.uint8)}, "5 images but 6 labels"),
        ({"train_images": np.zeros((6, 4, 4), np.uint8)}, "train_images are .*, test_images"),
        ({"train_labels": np.zeros(6, np.float32)}, "train_labels: type float32"),
        ({"train_labels": np.array([0, 1, 2, 0, 1, -1])}, "label -1 is not in"),
        ({"test_labels": np.array([0, 1, 7])}, r"test_labels: label 7 is not in 0\.\.2"),
        ({"test_images": np.zeros((0, 4, 5), np.uint8), "test_labels": np.zeros(0, np.int64)}, "no images"),
        ({"class_names": np.array([1, 2, 3])}, "class_names is not"),
        ({"train_labels": np.array([object()] * 6)}, "arrays of Python objects are not read"),
    ],
)
def test_a_strange_file_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    save(tmp_path, **changes)
    with pytest.raises(DataError, match=f"mine.npz.*{words}"):
        load_dataset("npz", tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken", None])
def test_what_is_no_npz_file(tmp_path: Path, content: bytes | None) -> None:
    path = save(tmp_path)
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataError, match=r"mine.npz: "):
        load_dataset("npz", path)


def test_a_bare_array(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"bare array.*numpy.savez"):
        load_dataset("npz", tmp_path / "array.npy")


def test_a_folder_without_or_with_several_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .npz file"):
        load_dataset("npz", tmp_path)
    np.savez(tmp_path / "a.npz", **arrays())
    np.savez(tmp_path / "b.npz", **arrays())
    with pytest.raises(DataError, match=r"a.npz, b.npz; name one"):
        load_dataset("npz", tmp_path)
