"""Finds and reads the files of an import: the one that was typed, and those that it names.

Ianvs opens the paths in its files from the working directory, and published files carry the paths of their
author's machine. So a file that is not where its path says is looked for from the first file's folder and the
folders above it, with ever less of the front of the path.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from engram.errors import ConfigurationError
from engram.importing.ledger import Document, Reading, leaves
from engram.spec.problems import shown
from engram.spec.yaml_text import load_documents

LARGEST = 1024 * 1024
"""Bytes of the largest file that is read."""
LONGEST = 300
"""Characters of a path that a message shows in full."""
MOST_LEAVES = 10_000
"""Most values of one file: each is accounted for."""


class Files:
    """The files of one import, and where their relative data paths start for a job written to `target`."""

    def __init__(self, first: Path, target: Path | None) -> None:
        self._first = first
        self._target = Path.cwd() if target is None else target.absolute().parent
        self._base = Path.cwd()

    def first(self) -> list[Document]:
        """Return the documents of the file that was typed. Raises ConfigurationError."""
        label = str(self._first)
        values = read_documents(self._first, label)
        if len(values) == 1:
            return [Document(label, values[0])]
        return [Document(f"{label}: document {number}", value) for number, value in enumerate(values, 1)]

    def follow(self, reference: Reading) -> Document:
        """Return the document of the file that the value of `reference` names, wherever it is found.

        Raises ConfigurationError that names the reference when there is none, or when it is no YAML.
        """
        written = reference.text()
        if not written:
            raise reference.error("is missing", "write the path of a YAML file")
        path = self._find(written)
        if path is None:
            problem = (
                f"{written!r} was not found" if len(written) < LONGEST else f"{shown(written)} was not found"
            )
            if os.path.isdir(Path.cwd() / written):
                raise reference.error(f"{shown(written)} is a directory", "name the file in it")
            remedy = (
                f"looked in the working directory, beside {self._first} and in the folders above it: run the "
                "command where ianvs is run, or correct the path"
            )
            raise reference.error(problem, remedy)
        label = _label(path)
        values = read_documents(path, label)
        if len(values) != 1:
            found = f"{len(values)} documents" if values else "no document"
            raise ConfigurationError(
                f"found {found} where one is meant", file=label, remedy=f"{reference.field} names it"
            )
        return Document(label, values[0])

    def data_path(self, written: str) -> str:
        """Return a path of the input as the job must write it: relative ones start at the job's folder."""
        if PurePosixPath(written).is_absolute() or self._target == self._base:
            return written
        return os.path.normpath(os.path.join(os.path.relpath(self._base, self._target), written))

    def _find(self, written: str) -> Path | None:
        """Return the file that `written` means: as Ianvs looks, then as a moved file is found."""
        relative = Path(*[part for part in Path(written).parts if part not in ("/", ".")])
        folder = self._first.absolute().parent
        if not Path(written).is_absolute():
            for base in (Path.cwd(), folder, *folder.parents):
                if os.path.isfile(base / relative):
                    self._base = base
                    return base / relative
        elif os.path.isfile(written):
            return Path(written)
        parts = relative.parts
        for skipped in range(len(parts)):
            places = (folder, *folder.parents) if len(parts) - skipped > 1 else (folder,)
            for base in places:
                if os.path.isfile(base.joinpath(*parts[skipped:])):
                    return base.joinpath(*parts[skipped:])
        return None


def read_documents(path: Path, label: str) -> list[Any]:
    """Return the documents of a YAML file. Raises ConfigurationError naming `label`, in one sentence."""
    values = load_documents(_text(path, label), label)
    if not values:
        raise ConfigurationError("is empty", file=label, remedy="name a file with a YAML document")
    count = sum(1 for value in values for _ in leaves(value))
    if count > MOST_LEAVES:
        raise ConfigurationError(
            f"holds {count:,} values", file=label, remedy=f"name a file with at most {MOST_LEAVES:,}"
        )
    return values


def _text(path: Path, label: str) -> str:
    """Return the text of a regular file that is not huge; a pipe or device would be read for ever."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise ConfigurationError("is a directory", file=label, remedy="name the file in it")
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(
                "is no regular file", file=label, remedy="save it as a file and name that"
            )
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigurationError(
                f"has {max(found.st_size, len(content)):,} bytes",
                file=label,
                remedy=f"name a job's file: those have at most {LARGEST:,}",
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError("no such file", file=label, remedy="check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"byte {error.start} is not UTF-8", file=label, remedy="save the file as UTF-8 text"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", file=label, remedy="check path and permissions"
        ) from error
    except ValueError:  # a NUL byte in the path
        raise ConfigurationError("is no path", file=label, remedy="check the path") from None


def _label(path: Path) -> str:
    """Return how messages call a file that was found: from the working directory where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
