from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from engram.data import load_dataset
from engram.data.sources import digits
from engram.errors import DataError


def test_the_images_are_those_of_scikit_learn() -> None:
    dataset = load_dataset("digits", None)
    bundle = sklearn.datasets.load_digits()
    train = dataset.train.read(np.arange(len(dataset.train.labels)))
    test = dataset.test.read(np.arange(len(dataset.test.labels)))
    ours = sorted((image.tobytes(), int(label)) for image, label in [
        *zip(train, dataset.train.labels, strict=True), *zip(test, dataset.test.labels, strict=True)
    ])  # fmt: skip
    scaled = (bundle.images / 16).astype(np.float32)
    theirs = sorted((image.tobytes(), int(label)) for image, label in zip(scaled, bundle.target, strict=True))
    assert ours == theirs


def test_a_fifth_of_each_class_is_for_test() -> None:
    dataset = load_dataset("digits", None)
    assert dataset.train.shape == dataset.test.shape == (1, 8, 8)
    test, train = np.bincount(dataset.test.labels), np.bincount(dataset.train.labels)
    assert np.array_equal(test, (test + train) // 5)
    assert test.sum() + train.sum() == 1797


def test_values_run_from_0_to_1() -> None:
    images = load_dataset("digits", None).train.read(np.arange(50))
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_a_damaged_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "digits.csv"
    monkeypatch.setattr(digits, "_table", lambda: table)
    for text, words in [
        ("1,2,3\n", "64 pixels"),
        ("1,x\n", "not a table"),
        (",".join(["17"] * 64) + ",1\n", "64 pixels"),
        (",".join(["1"] * 64) + ",10\n", "label 10"),
    ]:
        table.write_text(text)
        with pytest.raises(DataError, match=f"digits.csv.*{words}"):
            load_dataset("digits", None)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'engram\[train\]'"):
        load_dataset("digits", None)
