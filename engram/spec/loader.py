"""Files to jobs: text -> plain data -> typed job -> rules that span fields. The only door for job files.

Every error is a ConfigurationError that names the file, the field as it is written there, what was wrong and
what to write instead. `engram run`, `engram validate`, the operator and the pods all come through here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import API_VERSION, KIND
from engram.spec.nesting import DEEPEST, too_deep
from engram.spec.problems import as_error
from engram.spec.schema import schema_of
from engram.spec.validation import check_job
from engram.spec.wording import invalid_values, path_text, unknown_fields, without_nulls
from engram.spec.yaml_text import load_documents, load_yaml

__all__ = ["load_job", "load_jobs", "load_yaml", "parse_job"]

_NAMED = 4
"""Steps of the path that names what nests too deeply: down to `spec.workers[0].podTemplate`."""


def load_job(path: Path | str) -> FederatedIncrementalJob:
    """Return the job in the file at `path`, which holds exactly one.

    Raises ConfigurationError for a file that cannot be read, is no YAML, holds no or several documents, or an
    invalid job.
    """
    file = str(path)
    return parse_job(load_yaml(_read(Path(path)), file), file)


def load_jobs(path: Path | str) -> list[FederatedIncrementalJob]:
    """Return all jobs of the file at `path`, in order; empty documents are skipped.

    Raises ConfigurationError as `load_job` does, naming the document by its number (from 1)
    where there are several.
    """
    file = str(path)
    documents = load_documents(_read(Path(path)), file)
    if not documents:
        raise ConfigurationError("found no document", file=file, remedy="write one")
    if len(documents) == 1:
        return [parse_job(documents[0], file)]
    return [parse_job(document, f"{file}: document {number}") for number, document in enumerate(documents, 1)]


def parse_job(mapping: Mapping[str, Any], file: str = "") -> FederatedIncrementalJob:
    """Return the job that plain data say, as parsed from YAML or sent by Kubernetes; errors name `file`.

    What Kubernetes adds (status, all of metadata) is accepted; status is dropped. Raises ConfigurationError.
    """
    _check_kind(mapping, file)
    schema = schema_of(FederatedIncrementalJob)
    said = {key: value for key, value in mapping.items() if key != "status"}
    _check_depth(said, file)
    content = without_nulls(said, schema)
    problems = list(unknown_fields(content, schema, schema))
    job = None
    try:
        # Through JSON, strictly: the API server takes no "5" for 5 either.
        job = FederatedIncrementalJob.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problems.extend(invalid_values(error, schema))
    if job is not None and not problems:
        problems.extend(check_job(job))
    if job is None or problems:
        raise as_error(problems, file)
    return job


def _read(path: Path) -> str:
    """Return the text of a job file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError("no such file", file=str(path), remedy="check the path") from None
    except IsADirectoryError:
        raise ConfigurationError("is a directory", file=str(path), remedy="name a job file") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"byte {error.start} is not UTF-8", file=str(path), remedy="save the file as UTF-8 text"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=str(path)) from error


def _check_depth(mapping: Mapping[str, Any], file: str) -> None:
    """Refuse what nests more deeply than anything that walks a job can follow."""
    path = too_deep(mapping)
    if path is not None:
        raise ConfigurationError(
            "nested too deeply",
            field=path_text(path[:_NAMED]),
            file=file,
            remedy=f"nest at most {DEEPEST} levels",
        )


def _check_kind(mapping: object, file: str) -> None:
    """Refuse what is no job at all before its fields are looked at."""
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(
            "not a job: the document is no mapping", file=file, remedy=f"start with apiVersion: {API_VERSION}"
        )
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if key not in mapping:
            raise ConfigurationError("is missing", field=key, file=file, remedy=f"write {key}: {expected}")
        if mapping[key] != expected:
            raise ConfigurationError(
                f"is {mapping[key]!r}, not {expected}",
                field=key,
                file=file,
                remedy=f"write {key}: {expected}",
            )
