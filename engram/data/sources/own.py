"""A data set of the user's own, `package.module:Class`: the class is called with the root folder (or None).

It returns a DataSet, or an object with `train` and `test` (ImageSources) and, if it likes, `class_names` and
`sha256`. Without `sha256` the digest covers labels and image shapes only, as reading every image could take
hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engram.data.sources.arrays import check_labels, content_digest
from engram.data.types import DataSet, ImageSource
from engram.errors import ConfigurationError, EngramError
from engram.spec.dotted import load_dotted, shortened_traceback

FIELD = "spec.dataset.name"


def load_own(path: str, root: Path | None) -> DataSet:
    """Return the data set that `path` (`package.module:Class`) makes of `root`.

    Raises ConfigurationError with the user's own traceback, shortened, when that code fails.
    """
    factory = load_dotted(path, FIELD)
    if not callable(factory):
        raise ConfigurationError(f"{path} is not callable", field=FIELD, remedy="name a class or a function")
    try:
        made = factory(root)
    except EngramError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConfigurationError(
            f"{path} failed on {root}: {shortened_traceback(error)}", field=FIELD, remedy="mend that code"
        ) from error
    return _checked(path, made)


def _checked(path: str, made: Any) -> DataSet:
    train, test = (_source(path, made, part) for part in ("train", "test"))
    if train.shape != test.shape:
        raise _wrong(path, f"train images have shape {train.shape}, test images {test.shape}")
    names = getattr(made, "class_names", None)
    if names is None:
        names = range(1 + int(train.labels.max()))
    class_names = tuple(str(name) for name in names)
    for part, source in (("train", train), ("test", test)):
        check_labels(source.labels, len(class_names), len(source.labels), f"{path}: {part}.labels")
    digest = getattr(made, "sha256", None)
    if digest is None:
        digest = content_digest(
            train.labels, test.labels, np.array(train.shape), np.array(list(path.encode()))
        )
    return DataSet(path, train, test, class_names, str(digest))


def _source(path: str, made: Any, part: str) -> ImageSource:
    source: Any = getattr(made, part, None)
    labels, shape = getattr(source, "labels", None), getattr(source, "shape", None)
    if not callable(getattr(source, "read", None)):
        raise _wrong(path, f"its `{part}` has no method read(indices)")
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype != np.int64 or not len(labels):
        raise _wrong(path, f"its `{part}.labels` is not a numpy array of int64, one label an image")
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(isinstance(n, int) for n in shape):
        raise _wrong(path, f"its `{part}.shape` is not (channels, height, width)")
    found: ImageSource = source
    return found


def _wrong(path: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: {problem}",
        field=FIELD,
        remedy="return engram.data.DataSet, or an object with ImageSources `train` and `test`",
    )
