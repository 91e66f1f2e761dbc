"""The names that `spec.dataset.name` may take, and the loader behind each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

from engram.data.sources.cifar import load_cifar10, load_cifar100
from engram.data.sources.digits import load_digits
from engram.data.sources.folders import load_image_folder, load_imagenet, load_tiny_imagenet
from engram.data.sources.idx import load_fashion_mnist, load_mnist
from engram.data.sources.nothing import load_nothing
from engram.data.sources.npz import load_npz
from engram.data.sources.own import load_own
from engram.data.types import DataSet
from engram.errors import ConfigurationError
from engram.spec.dotted import is_dotted
from engram.spec.parameters import NONE

LOADERS: Mapping[str, Callable[[Path | None], DataSet]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "mnist": load_mnist,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "tiny-imagenet": load_tiny_imagenet,
    "imagenet": load_imagenet,
    "image-folder": load_image_folder,
    "npz": load_npz,
}


def load_dataset(name: str, root: Path | None) -> DataSet:
    """Return the data set `name`, read from `root` (volume and `spec.dataset.path` joined) if it has one.

    Raises ConfigurationError for an unknown name or a dotted path that does not import, DataError when files
    are missing, corrupt or unsafe.
    """
    if name == NONE:
        return load_nothing()
    if name in LOADERS:
        return LOADERS[name](root)
    if is_dotted(name):
        return load_own(name, root)
    close = difflib.get_close_matches(name, LOADERS, n=1)
    raise ConfigurationError(
        f"unknown data set {name!r}",
        field="spec.dataset.name",
        remedy=(f"did you mean {close[0]}? " if close else "")
        + f"write one of {', '.join(LOADERS)}, or package.module:Class of your own",
    )
