"""The Accepted condition of a valid job: what it says beside yes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from engram.spec.crd import build_schema
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import Reason
from engram_operator.manifests import checkpoint_is_durable, forgetful_groups
from engram_operator.model import Object
from engram_operator.status import Statement

_DEFAULTED = "managedBy"
"""A field that every version of the CRD defaults: where it is, the API server has set the defaults it
knows."""

_VALID = "The job is valid."
_NOT_DURABLE = (
    "Its checkpoint lies in an emptyDir: if the aggregator's pod is lost the run starts "
    "again from round 1, and it cannot be suspended; set spec.aggregator.checkpoint.volume or size to "
    "change that."
)


def acceptance(raw: Object, job: FederatedIncrementalJob, notice: Statement | None = None) -> Statement:
    """Return the Accepted condition of a job that is valid.

    Args:
        raw: the job as it is now.
        job: the job as it runs.
        notice: what was asked and is not done.
    """
    if notice is not None:
        return notice
    missing = undefaulted(raw.get("spec") or {})
    if missing:
        return Statement(
            True,
            Reason.CRD_OUTDATED,
            "The installed CustomResourceDefinition is older than the operator: it does not know "
            f"{missing}, which therefore has its default; apply the crds/ of the operator's version and "
            "then the job again.",
        )
    owing = _owing(job)
    if not checkpoint_is_durable(job):
        return Statement(True, Reason.CHECKPOINT_NOT_DURABLE, f"{_VALID} {_NOT_DURABLE} {owing}")
    if owing:
        return Statement(True, Reason.WORKER_STATE_NOT_DURABLE, f"{_VALID} {owing}")
    return Statement(True, Reason.VALID)


def _owing(job: FederatedIncrementalJob) -> str:
    """Return what to say of workers that forget with their pods; empty: nothing."""
    groups = forgetful_groups(job)
    if not groups:
        return ""
    return (
        f"What {job.spec.aggregation.compression} leaves unsaid dies with the pods of {', '.join(groups)}: a "
        "replaced worker starts owing nothing, and the result is not the same bit for bit; set "
        "spec.workers[].state.volume to change that."
    )


def undefaulted(spec: Mapping[str, Any]) -> str:
    """Return the first field that the API server should have given a default and has not; empty: none.

    An older CRD drops fields that it does not know without a word. That is seen without the right to read
    CRDs.
    """
    if _DEFAULTED not in spec:
        return ""
    return _undefaulted(_schema(), spec, "spec")


def _undefaulted(schema: Mapping[str, Any], value: object, path: str) -> str:
    if isinstance(value, Mapping):
        for key, below in (schema.get("properties") or {}).items():
            if key not in value and "default" in below:
                return f"{path}.{key}"
            found = _undefaulted(below, value.get(key), f"{path}.{key}")
            if found:
                return found
    if isinstance(value, list) and "items" in schema:
        return next(filter(None, (_undefaulted(schema["items"], item, f"{path}[]") for item in value)), "")
    return ""


@cache
def _schema() -> Mapping[str, Any]:
    spec: Mapping[str, Any] = build_schema()["properties"]["spec"]
    return spec
