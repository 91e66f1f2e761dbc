"""The example that joins MNIST and Fashion-MNIST, on small files in their format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engram.data import DataSet, load_dataset
from engram.errors import DataError

NAME = "mnist_and_fashion:load"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def both(write_idx: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both sets; thirty training images and twenty for test in each."""
    monkeypatch.syspath_prepend(EXAMPLES)
    write_idx(tmp_path / "mnist")
    write_idx(tmp_path / "fashion-mnist")
    return tmp_path


@pytest.fixture
def joined(both: Path) -> DataSet:
    return load_dataset(NAME, both)


def test_digits_come_first_and_garments_have_the_labels_from_ten_on(joined: DataSet) -> None:
    assert (joined.class_names[9], joined.class_names[10]) == ("9", "T-shirt/top")
    assert len(joined.class_names) == 20
    assert joined.train.labels.tolist() == [
        *(i % 10 for i in range(30)),
        *(10 + i % 10 for i in range(30)),
    ]
    assert len(joined.test.labels) == 40


def test_each_image_is_normalised_as_its_own_set_in_any_order(joined: DataSet, both: Path) -> None:
    digits = load_dataset("mnist", both / "mnist").train
    garments = load_dataset("fashion-mnist", both / "fashion-mnist").train
    found = joined.train.read(np.array([35, 2, 31, 2, 29]))
    wanted = [garments.read(np.array([5])), digits.read(np.array([2])), garments.read(np.array([1]))]
    wanted += [digits.read(np.array([2])), digits.read(np.array([29]))]
    assert np.array_equal(found, np.concatenate(wanted))
    assert joined.train.read(np.array([], np.int64)).shape == (0, *joined.train.shape)


def test_the_digest_sees_both_sets(joined: DataSet, both: Path) -> None:
    for folder in ("mnist", "fashion-mnist"):
        before = load_dataset(NAME, both).sha256
        file = both / folder / "t10k-images-idx3-ubyte"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        assert load_dataset(NAME, both).sha256 != before
    assert joined.sha256 != load_dataset(NAME, both).sha256


def test_a_set_that_is_missing_is_named_as_ever(both: Path) -> None:
    (both / "mnist").rename(both / "elsewhere")
    with pytest.raises(DataError, match="data set mnist needs there"):
        load_dataset(NAME, both)
