"""Reading files whole, with errors that say which file, where it was looked for and what to put there."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engram.errors import DataError


@dataclass(frozen=True)
class Original:
    """What is known of a published file: a file of this very size with other bytes is a damaged copy."""

    size: int
    """Bytes, unpacked."""
    md5: str


def require_root(root: Path | None, name: str, content: str) -> Path:
    """Return `root` when it exists; else raise DataError saying that `content` belongs there."""
    if root is None:
        raise DataError(
            f"data set {name} needs a directory: set spec.dataset.path to one that holds {content}"
        )
    if not root.exists():
        raise DataError(f"{root} does not exist; data set {name} needs there {content}")
    return root


def find_file(directory: Path, names: Sequence[str]) -> Path | None:
    """Return the first of `names` that is a file in `directory`."""
    return next((directory / name for name in names if (directory / name).is_file()), None)


def read_bytes(path: Path) -> bytes:
    """Return the content of `path`, unpacked when its name ends in .gz. Raises DataError."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as packed:
                return packed.read()
        return path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or cut short ({error}); copy the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_original(content: bytes, original: Original | None, path: Path | str) -> None:
    """Raise DataError when `content` has the size of the original but not its bytes.

    Another size is accepted: it is somebody's own set in the same format, not a damaged copy.
    """
    if original is None or len(content) != original.size:
        return
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != original.md5:
        raise DataError(
            f"{path}: damaged: as long as the published file ({original.size} bytes) but with other content; "
            "copy the file again"
        )
