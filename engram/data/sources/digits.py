"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries along: needs no files of one's own.

scikit-learn's own loader costs a second of imports (scipy) in each process, so the bundled table is read
directly; importing the package is not needed to find it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.data.sources.arrays import ArraySource, check_labels, content_digest
from engram.data.sources.files import Original, check_original, read_bytes
from engram.data.types import DataSet
from engram.errors import DataError

TABLE = Path("datasets", "data", "digits.csv.gz")
ORIGINAL = Original(264_712, "a0339c30a8a5312a1b6f9e5c719dcce5")
TEST_EVERY = 5
"""Every fifth image of each class, in file order, is for test: 20 % whatever the seed."""


def load_digits(root: Path | None) -> DataSet:
    """Return the set; `root` is not used. Images are 1 x 8 x 8, scaled from 0..16 to 0..1."""
    path = _table()
    content = read_bytes(path)
    check_original(content, ORIGINAL, path)
    try:
        table = np.loadtxt(content.decode("ascii").splitlines(), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path}: not a table of numbers ({error}); reinstall scikit-learn") from error
    if table.shape[1] != 65 or table[:, :64].min() < 0 or table[:, :64].max() > 16:
        raise DataError(f"{path}: not 64 pixels of 0..16 and a label in each line; reinstall scikit-learn")
    images = table[:, :64].astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, 64].copy()
    check_labels(labels, 10, len(images), str(path))
    test = _test_mask(labels)
    return DataSet(
        name="digits",
        train=ArraySource(images[~test], labels[~test], full_scale=16.0),
        test=ArraySource(images[test], labels[test], full_scale=16.0),
        class_names=tuple(str(digit) for digit in range(10)),
        sha256=content_digest(images, labels, test),
    )


def _table() -> Path:
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (Path(folder) / TABLE).is_file():
            return Path(folder) / TABLE
    raise DataError(
        f"data set digits is bundled with scikit-learn, but its {TABLE.as_posix()} was not found: "
        "pip install 'engram[train]'"
    )


def _test_mask(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(len(labels), np.bool_)
    for label in range(10):
        mask[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return mask
