"""Data that are not there, explained to somebody who wrote `spec.dataset.volume` and sees a pod fail."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from engram.errors import DataError
from engram.run.composition import Place

SHOWN = 5
"""Entries of a directory that a sentence names."""


@contextmanager
def explaining_data(place: Place, volume: Mapping[str, Any], path: str, user_field: str) -> Iterator[None]:
    """Let errors of the block about missing or unreadable data name the fields that mend them.

    `user_field` is the field with the user id that a pod runs as. Nothing is added outside of pods, where no
    volume is mounted.
    """
    try:
        yield
    except (DataError, PermissionError) as error:
        if place.mount is None or not volume:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
        root = place.data_root(volume, path) or place.mount
        said = str(error) if isinstance(error, DataError) else f"{error.filename}: {error.strerror}"
        raise DataError(f"spec.dataset: {said}; {_look(place.mount, root, user_field)}") from error


def _look(mount: Path, root: Path, user_field: str) -> str:
    """Return what is to be seen at the mount, and which field to look at."""
    user = f"the pod runs as user {os.getuid()}: give it permission to read, or set {user_field}"
    try:
        if not root.exists():
            empty = not any(mount.iterdir())
            mend = "put the data there or correct the volume" if empty else "correct spec.dataset.path"
            return f"spec.dataset.volume, mounted at {mount}, {_content(mount)}: {mend}"
        if root.is_file():
            return "it is in spec.dataset.volume" if os.access(root, os.R_OK) else user
        if not os.access(root, os.R_OK | os.X_OK):
            return user
        blocked = [entry.name for entry in islice(root.iterdir(), 1000) if not os.access(entry, os.R_OK)]
        if blocked:
            return f"{blocked[0]} cannot be read; {user}"
        return (
            f"{root}, of spec.dataset.volume, {_content(root)}: put the data there or correct volume and path"
        )
    except PermissionError:
        return user


def _content(directory: Path) -> str:
    names = sorted(entry.name for entry in islice(directory.iterdir(), 1000))
    if not names:
        return "is empty"
    more = " and more" if len(names) > SHOWN else ""
    return f"holds {', '.join(names[:SHOWN])}{more}"
