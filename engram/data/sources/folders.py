"""Image folders: one folder a class. Only the lists of files are held in memory; `image_files` reads them.

The digest of such a set covers the sorted list of relative paths with their sizes, not the pixels: it finds a
missing or exchanged file without reading gigabytes at every start.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from engram.data.sources.files import require_root
from engram.data.sources.image_files import SUFFIXES, ImageFileSource
from engram.data.types import DataSet
from engram.errors import DataError

Entry = tuple[str, int, int]
"""Relative path, size in bytes, label."""


def load_image_folder(root: Path | None) -> DataSet:
    """Return the set in `root`: train/<class>/*, and test/<class>/* or val/<class>/*."""
    folder = require_root(root, "image-folder", "train/<class>/* and test/<class>/* (or val/<class>/*)")
    return _load("image-folder", folder, ("test", "val"))


def load_imagenet(root: Path | None) -> DataSet:
    """Return ImageNet from train/<wnid>/* and val/<wnid>/*, at 64 x 64 pixels."""
    folder = require_root(root, "imagenet", "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG")
    return _load("imagenet", folder, ("val",))


def load_tiny_imagenet(root: Path | None) -> DataSet:
    """Return Tiny ImageNet: train/<wnid>/images/*, val/images/* and val/val_annotations.txt."""
    folder = require_root(root, "tiny-imagenet", "the folders train and val of tiny-imagenet-200")
    if not (folder / "train").is_dir() and (folder / "tiny-imagenet-200" / "train").is_dir():
        folder = folder / "tiny-imagenet-200"
    names = _class_names(folder, "tiny-imagenet")
    return _data_set(
        "tiny-imagenet", folder, names, _class_files(folder, "train", names), _annotated(folder, names)
    )


def _load(name: str, root: Path, test_folders: Sequence[str]) -> DataSet:
    names = _class_names(root, name)
    test = next((folder for folder in test_folders if (root / folder).is_dir()), None)
    if test is None:
        wanted = " or ".join(f"{folder}/<class>/" for folder in test_folders)
        raise DataError(f"{root}: no test images; data set {name} needs {wanted} beside train/")
    unknown = sorted(set(_folders(root / test)) - set(names))
    if unknown:
        raise DataError(
            f"{root / test / unknown[0]}: train/ has no such class; the same class folders belong in both"
        )
    return _data_set(name, root, names, _class_files(root, "train", names), _class_files(root, test, names))


def _data_set(
    name: str, root: Path, names: tuple[str, ...], train: Sequence[Entry], test: Sequence[Entry]
) -> DataSet:
    digest = hashlib.sha256()
    for path, size, label in (*train, *test):
        digest.update(f"{label} {size} {path}\n".encode("utf-8", "surrogateescape"))
    return DataSet(
        name, _source(root, train, "train"), _source(root, test, "test"), names, digest.hexdigest()
    )


def _source(root: Path, entries: Sequence[Entry], part: str) -> ImageFileSource:
    if not entries:
        raise DataError(f"{root}: no images for {part}; files must end in {', '.join(SUFFIXES)}")
    paths = np.array([path.encode("utf-8", "surrogateescape") for path, _, _ in entries])
    return ImageFileSource(root, paths, np.array([label for _, _, label in entries], np.int64))


def _class_names(root: Path, name: str) -> tuple[str, ...]:
    """Return the folders of train/ in the order of label ids: by number if all are numbers, else by name."""
    found = _folders(root / "train") if (root / "train").is_dir() else []
    if not found:
        raise DataError(
            f"{root / 'train'}: no class folders; data set {name} needs train/<class>/ with images"
        )
    return tuple(sorted(found, key=int) if all(folder.isdecimal() for folder in found) else found)


def _folders(parent: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(parent) if entry.is_dir())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _class_files(root: Path, part: str, names: Sequence[str]) -> list[Entry]:
    found: list[Entry] = []
    for label, name in enumerate(names):
        folder = root / part / name
        if folder.is_dir():
            found += sorted((path, size, label) for path, size in _images(root, folder))
    return found


def _images(root: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the image files below `folder`, relative to `root` with forward slashes, with their sizes."""
    prefix = folder.relative_to(root).as_posix()
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _images(root, folder / entry.name)
        elif entry.name.lower().endswith(SUFFIXES):
            try:
                yield f"{prefix}/{entry.name}", entry.stat().st_size
            except OSError as error:
                raise DataError(f"{folder / entry.name}: cannot be read: {error.strerror}") from error


def _annotated(root: Path, names: Sequence[str]) -> list[Entry]:
    path = root / "val" / "val_annotations.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} not found; tiny-imagenet-200.zip holds it: copy the folder val again"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    labels: Mapping[str, int] = {name: label for label, name in enumerate(names)}
    sizes = dict(_images(root, root / "val" / "images")) if (root / "val" / "images").is_dir() else {}
    found: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in labels:
            raise DataError(f"{path}: line {number}: not `file<tab>wnid<tab>...` with a wnid of train/")
        image = f"val/images/{fields[0]}"
        if image not in sizes:
            raise DataError(f"{root / image} not found; {path.name} names it: copy the folder val again")
        found.append((image, sizes[image], labels[fields[1]]))
    return found
