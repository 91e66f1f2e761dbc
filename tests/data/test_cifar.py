from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from engram.data import load_dataset
from engram.data.sources import cifar
from engram.data.sources.files import Original
from engram.errors import DataError


def batch(seed: int, count: int, labels: bytes = b"labels", classes: int = 10) -> bytes:
    images = np.random.RandomState(seed).randint(0, 256, (count, 3072)).astype(np.uint8)
    content = {b"data": images, labels: [i % classes for i in range(count)], b"filenames": [b"x.png"] * count}
    return pickle.dumps(content, protocol=2)


def files10() -> dict[str, bytes]:
    found = {f"data_batch_{number}": batch(number, 4) for number in range(1, 6)}
    names = {b"label_names": [f"class {label}".encode() for label in range(10)]}
    return {**found, "test_batch": batch(9, 6), "batches.meta": pickle.dumps(names, protocol=2)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, folder: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_the_unpacked_folder_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "cifar-10-batches-py", files10())
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.train.shape == (3, 32, 32)
    assert dataset.train.labels.tolist() == [0, 1, 2, 3] * 5
    assert len(dataset.test.labels) == 6
    assert dataset.class_names[3] == "class 3"
    raw = np.random.RandomState(2).randint(0, 256, (4, 3072)).astype(np.uint8).reshape(4, 3, 32, 32)
    image = dataset.train.read(np.array([5]))[0]
    expected = (raw[1] / 255 - np.reshape(cifar.CIFAR10.mean, (3, 1, 1))) / np.reshape(
        cifar.CIFAR10.std, (3, 1, 1)
    )
    assert np.allclose(image, expected, atol=1e-5)
    assert load_dataset("cifar10", folder).sha256 == dataset.sha256


def test_the_archive_itself_is_read_in_memory(tmp_path: Path) -> None:
    folder = write(tmp_path / "unpacked" / "cifar-10-batches-py", files10())
    path = pack(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files10())
    before = sorted(tmp_path.rglob("*"))
    assert load_dataset("cifar10", path).sha256 == load_dataset("cifar10", folder).sha256
    assert load_dataset("cifar10", tmp_path).sha256 == load_dataset("cifar10", folder).sha256
    assert sorted(tmp_path.rglob("*")) == before, "something was unpacked to disk"


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", {"data_batch_1": files10()["data_batch_1"]}) / "data_batch_1"
    files = files10()
    del files["data_batch_1"]
    path = pack(tmp_path / "plain.tar.gz", "cifar-10-batches-py", files)
    with tarfile.open(path) as plain, tarfile.open(tmp_path / "linked.tar.gz", "w:gz") as linked:
        for member in plain:
            linked.addfile(member, plain.extractfile(member))
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        linked.addfile(link)
    with pytest.raises(DataError, match=r"data_batch_1 is not in the archive"):
        load_dataset("cifar10", tmp_path / "linked.tar.gz")


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    names = {b"fine_label_names": [str(label).encode() for label in range(100)]}
    files = {
        "train": batch(0, 120, b"fine_labels", 100),
        "test": batch(1, 100, b"fine_labels", 100),
        "meta": pickle.dumps(names, protocol=2),
    }
    dataset = load_dataset("cifar100", write(tmp_path / "cifar-100-python", files).parent)
    assert len(dataset.class_names) == 100
    assert dataset.train.labels.max() == 99


def test_nothing_there_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"neither cifar-10-batches-py/data_batch_1 nor cifar-10-python.tar.gz"
    ):
        load_dataset("cifar10", tmp_path)
    with pytest.raises(DataError, match=r"nowhere does not exist.*cifar-100-python.tar.gz"):
        load_dataset("cifar100", tmp_path / "nowhere")


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "cifar-10-batches-py", files10())
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"data_batch_3 not found.*unpack cifar-10-python.tar.gz"):
        load_dataset("cifar10", tmp_path)


def test_a_batch_with_code_is_refused_and_never_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    write(tmp_path / "cifar-10-batches-py", {**files10(), "data_batch_2": pickle.dumps({b"data": Attack()})})
    with pytest.raises(DataError, match=r"data_batch_2: refused: the pickle asks for builtins.exec"):
        load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [10, 500, -20])
def test_a_truncated_archive_is_named(tmp_path: Path, keep: int) -> None:
    path = pack(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files10())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz: "):
        load_dataset("cifar10", tmp_path)


def test_the_checksum_at_the_end_of_an_archive_is_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files10())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz: damaged or cut short .*CRC"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({b"labels": [0]}, "no `data`"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "no `labels`"),
        ({b"data": np.zeros((1, 3072), np.float32), b"labels": [0]}, "not an array of bytes"),
        ({b"data": np.zeros((1, 100), np.uint8), b"labels": [0]}, "not an array of bytes"),
        ({b"data": b"raw", b"labels": [0]}, "not an array of bytes"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["0"]}, "not a list of whole numbers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0, 1]}, "1 images but 2 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "label 10 is not in 0..9"),
        ([1, 2], "no `data`"),
    ],
)
def test_a_strange_batch_is_named(tmp_path: Path, content: object, words: str) -> None:
    write(tmp_path / "cifar-10-batches-py", {**files10(), "test_batch": pickle.dumps(content, protocol=2)})
    with pytest.raises(DataError, match=f"test_batch: .*{words}"):
        load_dataset("cifar10", tmp_path)


def test_strange_class_names_are_named(tmp_path: Path) -> None:
    write(
        tmp_path / "cifar-10-batches-py",
        {**files10(), "batches.meta": pickle.dumps({b"label_names": [b"a"]})},
    )
    with pytest.raises(DataError, match=r"batches.meta: `label_names` is not a list of 10 names"):
        load_dataset("cifar10", tmp_path)


def test_a_damaged_copy_of_the_original_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files10()
    write(tmp_path / "cifar-10-batches-py", files)
    fake = Original(len(files["data_batch_4"]), "0" * 32)
    monkeypatch.setitem(cifar.CIFAR10.originals, "data_batch_4", fake)
    with pytest.raises(DataError, match=r"data_batch_4: damaged: as long as the published file"):
        load_dataset("cifar10", tmp_path)
