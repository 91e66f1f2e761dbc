from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.data import load_dataset
from engram.data.sources import idx
from engram.data.sources.files import Original
from engram.data.sources.idx import DEBIAN_FASHION_MNIST, FILES, parse_idx
from engram.errors import DataError

WriteIdx = Callable[[Path], Path]

installed = pytest.mark.skipif(
    not DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed"
)


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.286, 0.353)]
)
def test_plain_files_are_read_and_normalised(
    write_idx: WriteIdx, tmp_path: Path, name: str, mean: float, std: float
) -> None:
    dataset = load_dataset(name, write_idx(tmp_path))
    assert dataset.train.shape == (1, 4, 6)
    assert len(dataset.train.labels) == 30
    assert dataset.test.labels.tolist() == [i % 10 for i in range(20)]
    images = dataset.train.read(np.array([7, 29, 7]))
    assert images.shape == (3, 1, 4, 6)
    assert images[:, 0, 0, 0].tolist() == pytest.approx([(v / 255 - mean) / std for v in (7, 29, 7)])


def test_gzipped_files_are_the_same_set(write_idx: WriteIdx, tmp_path: Path) -> None:
    plain = load_dataset("mnist", write_idx(tmp_path / "plain"))
    packed = write_idx(tmp_path / "packed")
    for file in FILES:
        (packed / f"{file}.gz").write_bytes(gzip.compress((packed / file).read_bytes()))
        (packed / file).unlink()
    assert load_dataset("mnist", packed).sha256 == plain.sha256


def test_digest_sees_every_pixel_and_label(write_idx: WriteIdx, tmp_path: Path) -> None:
    folder = write_idx(tmp_path)
    before = load_dataset("mnist", folder).sha256
    for file in FILES:
        content = bytearray((folder / file).read_bytes())
        content[-1] ^= 1
        (folder / file).write_bytes(content)
        after = load_dataset("mnist", folder).sha256
        assert after != before
        before = after


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_says_where_and_what(write_idx: WriteIdx, tmp_path: Path, file: str) -> None:
    folder = write_idx(tmp_path)
    (folder / file).unlink()
    with pytest.raises(DataError) as caught:
        load_dataset("fashion-mnist", folder)
    text = str(caught.value)
    assert str(folder / file) in text
    assert all(name in text for name in FILES)
    assert "dataset-fashion-mnist" in text
    assert caught.value.exit_code == 43


def test_without_the_debian_package_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "DEBIAN_FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"Debian package dataset-fashion-mnist"):
        load_dataset("fashion-mnist", None)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("length", [0, 3, 9, -1])
def test_a_truncated_file_is_named(write_idx: WriteIdx, tmp_path: Path, file: str, length: int) -> None:
    folder = write_idx(tmp_path)
    (folder / file).write_bytes((folder / file).read_bytes()[:length])
    with pytest.raises(DataError, match=f"{file}: cut short"):
        load_dataset("mnist", folder)


def test_a_truncated_gzip_file_is_named(write_idx: WriteIdx, tmp_path: Path) -> None:
    folder = write_idx(tmp_path)
    packed = gzip.compress((folder / FILES[0]).read_bytes())
    (folder / FILES[0]).unlink()
    for content in (packed[:-9], packed[:20], b"no gzip at all", packed[:30] + b"\0" + packed[31:]):
        (folder / f"{FILES[0]}.gz").write_bytes(content)
        with pytest.raises(DataError, match=f"{FILES[0]}.gz: "):
            load_dataset("mnist", folder)


def test_labels_that_do_not_belong(write_idx: WriteIdx, tmp_path: Path) -> None:
    folder = write_idx(tmp_path)
    (folder / FILES[1]).write_bytes((folder / FILES[3]).read_bytes())
    with pytest.raises(DataError, match=r"30 images but 20 labels"):
        load_dataset("mnist", folder)


def test_a_label_that_no_class_has(write_idx: WriteIdx, tmp_path: Path) -> None:
    folder = write_idx(tmp_path)
    content = bytearray((folder / FILES[3]).read_bytes())
    content[12] = 11
    (folder / FILES[3]).write_bytes(content)
    with pytest.raises(DataError, match=f"{FILES[3]}: label 11 is not in 0..9"):
        load_dataset("mnist", folder)


def test_images_where_labels_belong(write_idx: WriteIdx, tmp_path: Path) -> None:
    folder = write_idx(tmp_path)
    (folder / FILES[1]).write_bytes((folder / FILES[0]).read_bytes())
    with pytest.raises(DataError, match=r"not an IDX file: it starts with 00000803 instead of 00000801"):
        load_dataset("mnist", folder)


@given(st.binary(max_size=64))
def test_any_bytes_give_an_array_or_a_data_error(content: bytes) -> None:
    try:
        size = len(parse_idx(content, 1, "file"))
    except DataError:
        return
    assert size == len(content) - 8


@pytest.mark.parametrize(
    ("name", "originals"), [("mnist", idx.MNIST_ORIGINALS), ("fashion-mnist", idx.FASHION_ORIGINALS)]
)
def test_a_damaged_copy_of_a_known_file_is_refused(
    write_idx: WriteIdx,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    originals: dict[str, Original],
) -> None:
    folder = write_idx(tmp_path)
    size = (folder / FILES[0]).stat().st_size
    monkeypatch.setitem(originals, FILES[0], Original(size, "0" * 32))
    with pytest.raises(DataError, match=f"{FILES[0]}: damaged: as long as the published file"):
        load_dataset(name, folder)


@installed
def test_the_debian_files_are_the_published_ones() -> None:
    dataset = load_dataset("fashion-mnist", None)
    assert np.bincount(dataset.train.labels).tolist() == [6000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    sample = dataset.train.read(np.arange(0, 60_000, 10))
    assert abs(float(sample.mean())) < 0.02
    assert abs(float(sample.std()) - 1) < 0.02
    assert dataset.class_names[9] == "Ankle boot"
