from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.data import load_dataset
from engram.data.sources import image_files
from engram.data.sources.image_files import MEAN, STD, ImageFileSource
from engram.errors import DataError

WriteImage = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path, write_image: WriteImage) -> Path:
    """Three training images of cat, two of dog, a test image of each; red is the class, green the number."""
    for label, (name, count) in enumerate((("cat", 3), ("dog", 2))):
        for number in range(count):
            write_image(tmp_path / "train" / name / f"{number}.png", (100 * label, 10 * number, 0))
        write_image(tmp_path / "test" / name / "t.PNG", (100 * label, 99, 0))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    return tmp_path


def pixel(red: int, green: int, blue: int) -> list[float]:
    return [(v / 255 - m) / s for v, m, s in zip((red, green, blue), MEAN, STD, strict=True)]


def test_folders_are_classes_and_files_are_read_when_asked_for(folder: Path) -> None:
    dataset = load_dataset("image-folder", folder)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.train.shape == (3, 64, 64)
    images = dataset.train.read(np.array([4, 1]))
    assert images.dtype == np.float32
    assert images[0, :, 5, 60].tolist() == pytest.approx(pixel(100, 10, 0), abs=1e-5)
    assert images[1, :, 0, 0].tolist() == pytest.approx(pixel(0, 10, 0), abs=1e-5)
    assert dataset.test.read(np.array([0]))[0, 1, 0, 0] == pytest.approx(pixel(0, 99, 0)[1], abs=1e-5)


def test_val_serves_where_test_is_missing(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    assert len(load_dataset("image-folder", folder).test.labels) == 2
    assert len(load_dataset("imagenet", folder).test.labels) == 2


def test_no_test_part(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    with pytest.raises(DataError, match=r"no test images; .* needs test/<class>/ or val/<class>/"):
        load_dataset("image-folder", folder)
    with pytest.raises(DataError, match=r"needs val/<class>/ beside train/"):
        load_dataset("imagenet", folder)


def test_no_train_part(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    with pytest.raises(DataError, match=r"train: no class folders"):
        load_dataset("image-folder", folder)


def test_no_image_in_the_class_folders(folder: Path) -> None:
    for path in (folder / "test").rglob("*.PNG"):
        path.unlink()
    with pytest.raises(DataError, match=r"no images for test; files must end in .jpg"):
        load_dataset("image-folder", folder)


def test_a_test_class_that_training_lacks(folder: Path, write_image: WriteImage) -> None:
    write_image(folder / "test" / "elk" / "1.png")
    with pytest.raises(DataError, match=r"test/elk: train/ has no such class"):
        load_dataset("image-folder", folder)


def test_an_empty_class_folder_keeps_its_label_id(folder: Path) -> None:
    """So a worker of partition `local` that lacks a class can still agree with the others."""
    (folder / "train" / "ant").mkdir()
    dataset = load_dataset("image-folder", folder)
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.train.labels.tolist() == [1, 1, 1, 2, 2]


def test_numbered_classes_are_in_order_of_number(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("10", "2", "1"):
        for part in ("train", "test"):
            write_image(tmp_path / part / name / "a.png")
    assert load_dataset("image-folder", tmp_path).class_names == ("1", "2", "10")


def test_digest_is_of_the_file_list_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder / "train", copy / "train")
    shutil.copytree(folder / "test", copy / "test")
    digest = load_dataset("image-folder", folder).sha256
    assert load_dataset("image-folder", copy).sha256 == digest
    (copy / "train" / "cat" / "0.png").rename(copy / "train" / "cat" / "00.png")
    renamed = load_dataset("image-folder", copy).sha256
    with (copy / "train" / "cat" / "00.png").open("ab") as file:
        file.write(b"more")
    assert len({digest, renamed, load_dataset("image-folder", copy).sha256}) == 3


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "gone"])
def test_a_corrupt_file_is_named_when_it_is_read(folder: Path, damage: str) -> None:
    path = folder / "train" / "dog" / "1.png"
    rng = np.random.RandomState(0)
    from PIL import Image

    Image.fromarray(rng.randint(0, 255, (64, 64, 3)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "text": b"hello", "empty": b""}.get(damage, b"")
    )
    dataset = load_dataset("image-folder", folder)
    if damage == "gone":
        path.unlink()
    assert len(dataset.train.read(np.arange(4))) == 4, "the good ones can be read"
    with pytest.raises(DataError, match=r"train/dog/1.png: cannot be read as an image"):
        dataset.train.read(np.array([0, 4]))


def test_an_image_of_absurd_size_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_PIXELS", 63)
    with pytest.raises(DataError, match=r"cat/0.png: 8 x 8 pixels are more than"):
        load_dataset("image-folder", folder).train.read(np.array([0]))


def test_the_centre_of_an_oblong_image_is_cut_out(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.zeros((64, 192, 3), np.uint8)
    picture[:, 64:128] = 200
    Image.fromarray(picture).save(tmp_path / "wide.png")
    assert np.array_equal(image_files.decode(tmp_path / "wide.png", 64), np.full((3, 64, 64), 200))
    Image.fromarray(picture[:, :64].copy()).convert("L").save(tmp_path / "grey.png")
    assert image_files.decode(tmp_path / "grey.png", 16).shape == (3, 16, 16)


def test_a_large_jpeg_is_scaled_faithfully(tmp_path: Path) -> None:
    from PIL import Image

    ramp = np.tile(np.linspace(0, 255, 500, dtype=np.uint8)[None, :, None], (375, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "large.jpg", quality=95)
    found = image_files.decode(tmp_path / "large.jpg", 64).astype(int)
    expected = np.linspace(255 * 62.5 / 500, 255 * 437.5 / 500, 64)
    assert np.abs(found[0, 32] - expected).max() < 6


def test_the_cache_is_bounded_and_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = np.array([f"train/cat/{n}.png".encode() for n in range(3)])
    source = ImageFileSource(folder, paths, np.zeros(3, np.int64), size=8, cache_bytes=2 * 3 * 8 * 8)
    opened: list[str] = []
    decode = image_files.decode

    def counting(path: Path, size: int) -> NDArray[np.uint8]:
        opened.append(path.name)
        return decode(path, size)

    monkeypatch.setattr(image_files, "decode", counting)
    first = source.read(np.array([0, 1, 0, 1]))
    assert opened == ["0.png", "1.png"]
    source.read(np.array([0, 2, 0]))
    assert opened == ["0.png", "1.png", "2.png"], "the least recently used image makes room"
    source.read(np.array([1]))
    assert opened == ["0.png", "1.png", "2.png", "1.png"], "the cache is bounded"
    assert np.array_equal(source.read(np.array([0, 1, 0, 1])), first)
    bare = ImageFileSource(folder, paths, np.zeros(3, np.int64), size=8, cache_bytes=0)
    assert np.array_equal(bare.read(np.array([0, 1, 0, 1])), first)


class TestTinyImageNet:
    @pytest.fixture
    def tiny(self, tmp_path: Path, write_image: WriteImage) -> Path:
        root = tmp_path / "tiny-imagenet-200"
        for name in ("n01", "n02"):
            for number in range(2):
                write_image(root / "train" / name / "images" / f"{name}_{number}.JPEG")
            (root / "train" / name / f"{name}_boxes.txt").write_text("0 0 1 1")
        for number in range(3):
            write_image(root / "val" / "images" / f"val_{number}.JPEG", (0, 0, 200))
        lines = ["val_0.JPEG\tn02\t0\t0\t1\t1", "val_1.JPEG\tn01\t0\t0\t1\t1", "val_2.JPEG\tn02\t0\t0\t1\t1"]
        (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
        return root

    def test_labels_come_from_the_annotations(self, tiny: Path) -> None:
        dataset = load_dataset("tiny-imagenet", tiny)
        assert dataset.class_names == ("n01", "n02")
        assert dataset.train.labels.tolist() == [0, 0, 1, 1]
        assert dataset.test.labels.tolist() == [1, 0, 1]
        assert dataset.test.read(np.array([2])).shape == (1, 3, 64, 64)
        assert load_dataset("tiny-imagenet", tiny.parent).sha256 == dataset.sha256

    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            (None, "val_annotations.txt not found"),
            ("val_0.JPEG", "val_annotations.txt: line 1: not `file"),
            ("val_0.JPEG\tn99\t0", "line 1: .* wnid of train"),
            ("val_9.JPEG\tn01\t0", "val_9.JPEG not found; val_annotations.txt names it"),
            ("", "no images for test"),
        ],
    )
    def test_strange_annotations(self, tiny: Path, lines: str | None, words: str) -> None:
        path = tiny / "val" / "val_annotations.txt"
        path.unlink() if lines is None else path.write_text(lines)
        with pytest.raises(DataError, match=words):
            load_dataset("tiny-imagenet", tiny)

    def test_annotations_that_are_no_text(self, tiny: Path) -> None:
        (tiny / "val" / "val_annotations.txt").write_bytes(b"\xff\xfe\x80")
        with pytest.raises(DataError, match=r"val_annotations.txt: cannot be read"):
            load_dataset("tiny-imagenet", tiny)
