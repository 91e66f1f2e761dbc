"""CIFAR-10 and CIFAR-100, the "python version" archives (www.cs.toronto.edu/~kriz/cifar.html).

Read from the unpacked folder, or from the .tar.gz itself, whose wanted members are read in memory: nothing is
written to disk, so no path inside the archive matters. The batches are pickles; `unpickle` keeps them inert.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.data.sources.arrays import ArraySource, check_labels, content_digest
from engram.data.sources.files import Original, check_original, read_bytes, require_root
from engram.data.sources.unpickle import load_arrays
from engram.data.types import DataSet
from engram.errors import DataError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Archive:
    name: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    originals: dict[str, Original]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


CIFAR10 = _Archive(
    name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels=b"labels",
    names=b"label_names",
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    originals={
        "data_batch_1": Original(31_035_704, "c99cafc152244af753f735de768cd75f"),
        "data_batch_2": Original(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
        "data_batch_3": Original(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
        "data_batch_4": Original(31_035_696, "634d18415352ddfa80567beed471001a"),
        "data_batch_5": Original(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
        "test_batch": Original(31_035_526, "40351d587109b95175f43aff81a1287e"),
    },
)

CIFAR100 = _Archive(
    name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    meta="meta",
    labels=b"fine_labels",
    names=b"fine_label_names",
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    originals={"train": Original(155_249_918, "16019d7e3df5f24257cddd939b257f8d")},
)


def load_cifar10(root: Path | None) -> DataSet:
    """Return CIFAR-10 from the folder cifar-10-batches-py or cifar-10-python.tar.gz in or at `root`."""
    return _load(CIFAR10, root)


def load_cifar100(root: Path | None) -> DataSet:
    """Return CIFAR-100 (fine labels) from the folder cifar-100-python or its .tar.gz in or at `root`."""
    return _load(CIFAR100, root)


def _load(archive: _Archive, root: Path | None) -> DataSet:
    content = f"the folder {archive.folder} or the archive {archive.archive}"
    contents, where = _contents(archive, require_root(root, archive.name, content))
    train = [_batch(archive, contents[file], f"{where}/{file}", file) for file in archive.train]
    images = np.concatenate([batch[0] for batch in train])
    labels = np.concatenate([batch[1] for batch in train])
    test_images, test_labels = _batch(
        archive, contents[archive.test], f"{where}/{archive.test}", archive.test
    )
    return DataSet(
        name=archive.name,
        train=ArraySource(images, labels, mean=archive.mean, std=archive.std),
        test=ArraySource(test_images, test_labels, mean=archive.mean, std=archive.std),
        class_names=_class_names(archive, contents[archive.meta], f"{where}/{archive.meta}"),
        sha256=content_digest(images, labels, test_images, test_labels),
    )


def _contents(archive: _Archive, root: Path) -> tuple[dict[str, bytes], Path]:
    if root.is_file():
        return _unpack(archive, root), root
    for folder in (root, root / archive.folder):
        if (folder / archive.train[0]).is_file():
            missing = [file for file in archive.files if not (folder / file).is_file()]
            if missing:
                raise DataError(
                    f"{folder / missing[0]} not found; data set {archive.name} is the files "
                    f"{', '.join(archive.files)}: unpack {archive.archive} there again"
                )
            return {file: read_bytes(folder / file) for file in archive.files}, folder
    if (root / archive.archive).is_file():
        return _unpack(archive, root / archive.archive), root / archive.archive
    raise DataError(
        f"{root}: neither {archive.folder}/{archive.train[0]} nor {archive.archive} is there; put the python "
        f"version of {archive.name} there, packed or unpacked"
    )


def _unpack(archive: _Archive, path: Path) -> dict[str, bytes]:
    wanted = {f"{archive.folder}/{file}": file for file in archive.files}
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unpacked:
            with tarfile.open(fileobj=unpacked, mode="r|") as members:
                for member in members:
                    file = wanted.get(member.name)
                    stream = members.extractfile(member) if file is not None and member.isreg() else None
                    if file is not None and stream is not None:
                        found[file] = stream.read()
            while unpacked.read(2**20):  # to the end, where gzip's checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or cut short ({error}); copy the archive again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    missing = [name for name, file in wanted.items() if file not in found]
    if missing:
        raise DataError(
            f"{path}: {missing[0]} is not in the archive; {archive.archive} has it: copy it again"
        )
    return found


def _batch(
    archive: _Archive, content: bytes, where: str, file: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    check_original(content, archive.originals.get(file), where)
    batch = load_arrays(content, where)
    images, labels = _entry(batch, b"data", where), _entry(batch, archive.labels, where)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (PIXELS,):
        raise DataError(f"{where}: `data` is not an array of bytes, {PIXELS} for each image; copy it again")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: `{archive.labels.decode()}` is not a list of whole numbers; copy it again")
    ids = np.array(labels, np.int64)
    check_labels(ids, archive.classes, len(images), where)
    return images.reshape(-1, 3, 32, 32), ids


def _class_names(archive: _Archive, content: bytes, where: str) -> tuple[str, ...]:
    names = _entry(load_arrays(content, where), archive.names, where)
    if not isinstance(names, list) or len(names) != archive.classes:
        raise DataError(f"{where}: `{archive.names.decode()}` is not a list of {archive.classes} names")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)


def _entry(batch: Any, key: bytes, where: str) -> Any:
    if isinstance(batch, dict):
        for candidate in (key, key.decode()):
            if candidate in batch:
                return batch[candidate]
    raise DataError(f"{where}: holds no `{key.decode()}`; it is not a batch of the python version")
