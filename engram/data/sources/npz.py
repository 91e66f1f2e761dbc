"""A data set of one's own in one numpy file: train_images, train_labels, test_images, test_labels.

Images are [n, height, width] or [n, channels, height, width]: uint8 is scaled to 0..1, floating-point numbers
are taken as they are (normalise them before saving). Labels are whole numbers from 0. `class_names` (strings)
is optional and fixes the number of classes.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.data.sources.arrays import ArraySource, check_labels, content_digest
from engram.data.sources.files import require_root
from engram.data.types import DataSet
from engram.errors import DataError

KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def load_npz(root: Path | None) -> DataSet:
    """Return the set in the .npz file `root`, or in the only .npz file of the folder `root`."""
    path = _file(require_root(root, "npz", f"an .npz file with {', '.join(KEYS)}"))
    arrays = _arrays(path)
    parts = []
    names = _class_names(arrays, path)
    for part in ("train", "test"):
        images = _images(arrays[f"{part}_images"], f"{path}: {part}_images")
        labels = _labels(arrays[f"{part}_labels"], f"{path}: {part}_labels")
        check_labels(labels, len(names), len(images), f"{path}: {part}_labels")
        parts.append(ArraySource(images, labels, full_scale=255.0 if images.dtype == np.uint8 else 1.0))
    train, test = parts
    if train.shape != test.shape:
        raise DataError(f"{path}: train_images are {train.shape}, test_images {test.shape} (channels first)")
    digest = content_digest(train.images, train.labels, test.images, test.labels)
    return DataSet("npz", train, test, names, digest)


def _file(root: Path) -> Path:
    if root.is_file():
        return root
    found = sorted(root.glob("*.npz"))
    if len(found) != 1:
        what = ", ".join(path.name for path in found) or "no .npz file"
        raise DataError(f"{root}: holds {what}; name one .npz file in spec.dataset.path")
    return found[0]


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as stream:  # numpy leaves a file open that it cannot read
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: one bare array, not an .npz file; save it with numpy.savez")
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise DataError(f"{path}: holds no array {missing[0]}; it needs {', '.join(KEYS)}")
            return {key: file[key] for key in (*KEYS, "class_names") if key in file}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise DataError(f"{path}: damaged or cut short ({error}); copy the file again") from error
    except ValueError as error:
        raise DataError(
            f"{path}: not an .npz file of plain arrays ({error}); arrays of Python objects are not read"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _images(images: NDArray[Any], where: str) -> NDArray[Any]:
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise DataError(
            f"{where}: shape {images.shape}; write [n, height, width] or [n, channels, height, width]"
        )
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        raise DataError(
            f"{where}: shape {images.shape} looks like channels last; "
            "save numpy.transpose(images, (0, 3, 1, 2))"
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{where}: type {images.dtype}; write uint8 (0..255) or float32 (normalised)")
    if not np.isfinite(images).all():
        raise DataError(f"{where}: holds values that are not finite")
    return images.astype(np.float32)


def _labels(labels: NDArray[Any], where: str) -> NDArray[np.int64]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: type {labels.dtype}, shape {labels.shape}; write one whole number an image"
        )
    return labels.astype(np.int64)


def _class_names(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[str, ...]:
    names = arrays.get("class_names")
    if names is None:
        labels = _labels(arrays["train_labels"], f"{path}: train_labels")
        return tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{path}: class_names is not a list of strings")
    return tuple(str(name) for name in names)
