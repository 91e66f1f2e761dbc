"""Files that are there whole, or not at all, whatever moment a process or machine dies at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from engram.federation.tensors import Buffer


def write_whole(path: Path, parts: Iterable[Buffer]) -> None:
    """Write a file under a temporary name, sync it, and give it its name. Raises OSError, with nothing left
    of the new content.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
