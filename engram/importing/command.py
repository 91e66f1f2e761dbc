"""`engram import ianvs` and `engram import sedna`: files in, a job file out, the account on stderr."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from engram.errors import ConfigurationError
from engram.importing import ianvs, sedna
from engram.importing.draft import Imported
from engram.importing.files import Files
from engram.importing.ledger import path_text
from engram.importing.render import account, job_text
from engram.spec.loader import load_yaml, parse_job

STANDARD_OUTPUT = "job.yaml"
"""How the account calls a job that was written to standard output."""


def import_ianvs(file: Path, target: Path | None) -> int:
    """Write the job for an Ianvs benchmarking job to `target`, or to standard output. Returns 0."""
    _check_target(target)
    files = Files(file, target)
    documents = files.first()
    if len(documents) > 1:
        raise ConfigurationError(
            f"found {len(documents)} documents where one is meant", file=str(file), remedy="keep one"
        )
    imported = ianvs.convert(documents[0], files)
    command = shlex.join(["engram", "run", _name(target), *imported.options])
    return _write(imported, f"Ianvs' {file}", [command], file, target)


def import_sedna(file: Path, target: Path | None, *, dialect: bool) -> int:
    """Write the job for the FederatedLearningJob in `file` to `target`, or to standard output. Returns 0.

    `dialect`: the workers' images train with their own code, over Sedna's protocol.
    """
    _check_target(target)
    imported = sedna.convert(Files(file, target).first(), dialect=dialect)
    commands = [shlex.join(["kubectl", "apply", "-f", _name(target)])]
    if not dialect:  # only a cluster starts the images' own code
        commands.append(shlex.join(["engram", "run", _name(target)]))
    return _write(imported, f"Sedna's {file}", commands, file, target)


def _name(target: Path | None) -> str:
    return str(target or STANDARD_OUTPUT)


def _write(imported: Imported, source: str, commands: Sequence[str], file: Path, target: Path | None) -> int:
    lines = account(imported, source, commands)
    text = job_text(imported, lines)
    check_job(imported, text, str(file))
    if target is None:
        print(text, end="", flush=True)
    else:
        _save(text, target)
    print("\n".join(lines), file=sys.stderr, flush=True)
    return 0


def check_job(imported: Imported, text: str, file: str) -> None:
    """Raise ConfigurationError, naming the place in the input, unless the job that was made is valid."""
    try:
        parse_job(load_yaml(text, file), file)
    except ConfigurationError as error:
        origin = imported.origin(error.field)
        if origin is None:
            raise
        raise ConfigurationError(
            f"{error.field} of the job {error.problem}",
            field=path_text(origin.path),
            file=origin.file,
            remedy=error.remedy,
        ) from error


def _check_target(target: Path | None) -> None:
    """Raise ConfigurationError for a `--out` that cannot be written or would overwrite something."""
    if target is None:
        return
    if os.path.lexists(target):
        raise ConfigurationError(
            "exists already", field="--out", file=str(target), remedy="name a new file, or remove this one"
        )
    if not target.absolute().parent.is_dir():
        raise ConfigurationError(
            "its folder does not exist", field="--out", file=str(target), remedy="make it first"
        )


def _save(text: str, target: Path) -> None:
    """Write the whole file or none of it; never over one that appeared meanwhile."""
    try:
        with target.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                target.unlink()
                raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot be written: {error.strerror}",
            field="--out",
            file=str(target),
            remedy="name another file",
        ) from error
