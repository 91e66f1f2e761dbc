"""Job files on disk: the raw mapping that overrides change, and the folder that relative names start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engram.errors import ConfigurationError, DataError
from engram.run.composition import Place
from engram.spec import FederatedIncrementalJob
from engram.spec.loader import load_job, load_yaml, parse_job

FOLDER_ANNOTATION = "engram.dev/job-folder"
"""In the resolved job file of a run directory: the folder of the file that it was made from."""


def load_mapping(path: Path) -> dict[str, Any]:
    """Return the one document of the job file as plain data, not yet validated.

    Raises ConfigurationError for a file that cannot be read, is no YAML or holds several documents.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return load_job(path).dump()  # raises the sentence that fits
    loaded = load_yaml(text, str(path))
    return loaded if isinstance(loaded, dict) else parse_job(loaded, str(path)).dump()


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Let errors of the block that are about a job's spec, or about its data, name the job file.

    Errors that name a file already, or an option, stay as they are.
    """
    try:
        yield
    except ConfigurationError as error:
        if error.file or error.field.partition(".")[0] != "spec":
            raise
        raise error.within(file) from error
    except DataError as error:
        raise DataError(f"{file}: spec.dataset: {error}") from error


def load_placed(path: Path, mount: Path | None = None) -> tuple[FederatedIncrementalJob, Place]:
    """Return the job of a file and the place that its paths and modules refer to, for a process of a run."""
    job = load_job(path)
    return job, replace(place_of(job, path, mount), alone=True)


def place_of(job: FederatedIncrementalJob, path: Path, mount: Path | None = None) -> Place:
    """Return where the names in the job of the file `path` refer to: its folder, or that of its origin."""
    annotations = (job.metadata.model_extra or {}).get("annotations")
    origin = annotations.get(FOLDER_ANNOTATION) if isinstance(annotations, dict) else None
    if isinstance(origin, str) and Path(origin).is_dir():
        return Place(Path(origin), mount)
    return Place(path.resolve().parent, mount)


def with_origin(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the dumped job with the folder it came from noted, so that a copy still finds its files."""
    metadata = dict(document["metadata"])
    annotations = metadata.get("annotations")
    kept = dict(annotations) if isinstance(annotations, dict) else {}
    metadata["annotations"] = {**kept, FOLDER_ANNOTATION: str(folder.resolve())}
    return {**document, "metadata": metadata}
